/**
 * `node tools/complete-lock.mjs`, after a change of dependencies: gives each package of the lock file its integrity hash,
 * and adds the builds for other platforms that npm leaves out where a registry's mirror does not offer them, and then
 * refuses in `npm ci`. A hash that the registry does not tell is an error: take a version of which it has all platforms.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const path = join(dirname(dirname(fileURLToPath(import.meta.url))), 'package-lock.json');
const lock = JSON.parse(readFileSync(path, 'utf8'));
const SYSTEMS = ['android', 'darwin', 'freebsd', 'linux', 'openharmony', 'win32'];
const PROCESSORS = ['arm64', 'arm', 'x64', 'ia32', 'ppc64', 's390x', 'riscv64', 'loong64'];

function platformOf(name) {
  const words = name.split(/[-/]/);
  const os = SYSTEMS.find((system) => words.includes(system));
  const cpu = PROCESSORS.find((processor) => words.includes(processor));
  if (!os || !cpu) throw new Error(`${name} does not name its platform: install it by hand`);
  const libc = words.includes('musl') ? ['musl'] : words.includes('gnu') ? ['glibc'] : undefined;
  return { cpu: [cpu], ...(libc && { libc }), os: [os] };
}

function integrityOf(name, version) {
  try {
    const said = execFileSync('npm', ['view', `${name}@${version}`, 'dist.integrity'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return said.trim() || undefined;
  } catch {
    return undefined;
  }
}

const done = [];
const unknown = [];
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`;
    if (lock.packages[place] || !/^\d/.test(version)) continue;
    lock.packages[place] = { version, ...platformOf(name), ...(entry.dev && { dev: true }), optional: true };
    done.push(name);
  }
}
for (const [place, { version, integrity, link, ...rest }] of Object.entries(lock.packages)) {
  if (place === '' || link || integrity) continue;
  const name = rest.name ?? place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
  const found = integrityOf(name, version);
  if (found) lock.packages[place] = { version, integrity: found, ...rest };
  (found ? done : unknown).push(`${name}@${version}`);
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
process.stdout.write(done.length === 0 ? 'the lock file is complete\n' : `completed ${done.join(', ')}\n`);
if (unknown.length > 0) {
  process.stderr.write(`no integrity hash from the registry: ${unknown.join(', ')}\n`);
  process.exitCode = 1;
}
