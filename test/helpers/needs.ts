/**
 * What some tests need of the machine: root, namespaces, programs of Debian. Where it is missing they are skipped and say
 * so; in CI (CI=true) nothing is skipped and they fail instead.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { whichTool } from '../../src/cli/demo/tools';

const mayNotSkip = process.env.CI === 'true';

/** `describe`, or a loud skip with the reasons. */
export function describeWhere(missing: readonly (string | undefined)[]): jest.Describe {
  const reasons = missing.filter((reason) => reason !== undefined);
  if (reasons.length === 0 || mayNotSkip) return describe;
  process.stderr.write(`\nSKIPPED in ${expect.getState().testPath ?? 'a test'}: ${reasons.join('; ')}\n`);
  // Said above, loudly, and impossible in CI: what is missing is this machine's, not the test's.
  return describe.skip;
}

export function needsRoot(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'it needs root';
}

/** A program, installed where it is missing, this is root, and there is a package of Debian for it. */
export function needsProgram(name: string, debianPackage: string, ...folders: readonly string[]): string | undefined {
  const there = (): boolean =>
    whichTool(name) !== undefined || folders.some((folder) => existsSync(join(folder, name)));
  if (there()) return undefined;
  if (mayNotSkip && process.getuid?.() === 0 && whichTool('apt-get')) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = (): unknown =>
      execFileSync('apt-get', ['install', '-y', '--no-install-recommends', debianPackage], { stdio: 'ignore', env });
    try {
      install();
    } catch {
      execFileSync('apt-get', ['update'], { stdio: 'ignore', env });
      install();
    }
  }
  return there() ? undefined : `${name} is missing: sudo apt-get install -y ${debianPackage}`;
}

/** PostgreSQL's server programs, which Debian keeps off the PATH. */
export function postgresFolder(): string {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  return join(root, versions[0] ?? '', 'bin');
}
