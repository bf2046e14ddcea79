/**
 * The newest Node 24, beside whichever runs this: `npm run check` goes on both, since one is what people have and the other is
 * what the image ships. It comes from the npm registry (package `node`, which carries the program) and is kept in DWCP's cache.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const MAJOR = 24;

/** @returns the path of the program; undefined where this one is of that major already @throws where the registry has none for this machine */
export function newestNode() {
  if (Number(process.versions.node.split('.')[0]) >= MAJOR) return undefined;
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'dwcp', `node-${MAJOR}`);
  const program = join(folder, 'node_modules', 'node', 'bin', 'node');
  if (!existsSync(program)) {
    mkdirSync(folder, { recursive: true });
    const args = [
      'install',
      '--prefix',
      folder,
      '--no-save',
      '--no-audit',
      '--no-fund',
      '--loglevel',
      'error',
      `node@${MAJOR}`,
    ];
    execFileSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  }
  return program;
}
