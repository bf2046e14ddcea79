/** What is installed is what was looked at: each package of the lock file by its hash, none from an address of its own. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Package {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
}

const text = readFileSync(join(__dirname, '..', '..', '..', 'package-lock.json'), 'utf8');
const packages = Object.entries((JSON.parse(text) as { packages: Record<string, Package> }).packages).filter(
  ([place]) => place !== '',
);

test('every package is held by its hash', () => {
  expect(packages.length).toBeGreaterThan(100);
  expect(packages.filter(([, { integrity }]) => !integrity?.startsWith('sha512-')).map(([place]) => place)).toEqual([]);
});

test('no package names the registry that it came from', () => {
  expect(packages.filter(([, { resolved }]) => resolved !== undefined).map(([place]) => place)).toEqual([]);
});

test('all packages of Temporal are of one version', () => {
  const versions = packages.flatMap(([place, { version }]) =>
    /^node_modules\/@temporalio\/[^/]+$/.test(place) ? [version] : [],
  );
  expect(new Set(versions).size).toBe(1);
});
