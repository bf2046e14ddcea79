/**
 * The build: TypeScript to dist/, then the workflow bundle. Plain Node, so that it runs before anything is built; does
 * nothing where dist/ is newer than every source.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bundle = join(root, 'dist', 'workflow-bundle.js');
const sources = [
  'src',
  'workflows',
  'activities',
  'test',
  'bench',
  'tools',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
];

const running = new Set();

/** Runs a program with this one's terminal; a signal that reaches us reaches it. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit', cwd: root, ...options });
    running.add(child);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve(code ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}

let asked = false;

/** True once somebody has asked this program to stop. */
export function wasInterrupted() {
  return asked;
}

export function forwardSignals() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (running.size === 0 || asked) return;
      asked = true;
      for (const child of running) child.kill(signal);
    });
  }
}

function newest(path) {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status) return 0;
  if (!status.isDirectory()) return status.mtimeMs;
  return readdirSync(path).reduce((latest, name) => Math.max(latest, newest(join(path, name))), status.mtimeMs);
}

export function isBuilt() {
  if (!existsSync(bundle)) return false;
  const builtAt = statSync(bundle).mtimeMs;
  return sources.every((source) => newest(join(root, source)) <= builtAt);
}

/** @returns the exit code */
export async function build() {
  if (isBuilt()) return 0;
  // Anew as a whole: what a deleted source once gave must not be run or tested.
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  const code = await run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc')]);
  return code === 0 ? run(process.execPath, [join(root, 'dist', 'src', 'control', 'bundle-workflows.js')]) : code;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  forwardSignals();
  process.exitCode = await build();
}
