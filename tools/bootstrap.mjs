/**
 * What `npm run demo`, `npm test`, `npm run check` and `npm run bench` begin with, in plain Node and on a fresh clone: installs the
 * dependencies, builds, finds or makes a Temporal server, says what it does, and goes on to the command itself.
 */

import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { build, forwardSignals, isBuilt, root, run, wasInterrupted } from './build.mjs';
import { newestNode } from './newest-node.mjs';

const [command = 'demo', ...args] = process.argv.slice(2);
const json = args.includes('--json');
const cli = [join(root, 'dist', 'src', 'cli', 'main.js')];

function say(line) {
  if (json) process.stdout.write(`${JSON.stringify({ event: 'note', text: line })}\n`);
  else process.stdout.write(`${line}\n`);
}

function fail(line, code) {
  if (wasInterrupted()) [line, code] = ['interrupted', 130];
  if (json) process.stdout.write(`${JSON.stringify({ event: 'error', ok: false, message: line })}\n`);
  else process.stderr.write(`dwcp: ${line}\n`);
  process.exit(code);
}

function lockHash() {
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(process.version)
    .digest('hex');
}

/** Node's own headers, where they lie beside it: compiling then downloads nothing. */
function headers() {
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  return existsSync(join(prefix, 'include', 'node', 'node.h')) ? { npm_config_nodedir: prefix } : {};
}

async function install() {
  const mark = join(root, 'node_modules', '.dwcp-installed');
  if (existsSync(mark) && readFileSync(mark, 'utf8') === lockHash()) return;
  say('installing dependencies (npm ci)');
  const code = await run('npm', ['ci', '--no-audit', '--no-fund', ...(json ? ['--silent'] : [])], {
    stdio: json ? ['ignore', 'ignore', 'inherit'] : 'inherit',
    env: { ...headers(), ...process.env },
  });
  if (code !== 0)
    fail(
      `npm ci ended with ${code}. Check the network and the registry, and that a C/C++ toolchain is there (apt-get install -y build-essential python3)`,
      1,
    );
  mkdirSync(join(root, 'node_modules'), { recursive: true });
  writeFileSync(mark, lockHash());
}

async function prepare() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 3))
    fail(`Node ${process.versions.node} is too old. Install Node 20.3 or newer`, 2);
  await install();
  if (!isBuilt()) {
    say('building');
    const code = await build();
    if (code !== 0) fail(`the build ended with ${code}`, 1);
  }
}

async function locateServer() {
  const code = await run(process.execPath, [...cli, 'server', '--locate', ...(json ? ['--json'] : [])]);
  if (code !== 0) process.exit(code);
}

const PURE = ['unit', 'contract', 'integration', 'model', 'replay'];
/** No test asserts a time, and most wait as long as they compute: with as many as processors, those would wait too. */
const AT_A_TIME = ['--maxWorkers', '3'];

const JEST = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
const jest = (given, node = process.execPath) => run(node, ['--enable-source-maps', JEST, ...given]);
const program = (...path) => join(root, 'node_modules', ...path);
const LOOKS = [
  [program('oxlint', 'bin', 'oxlint'), '--config', 'oxlint.config.mjs', '--deny-warnings'],
  [program('@biomejs', 'biome', 'bin', 'biome'), 'check', '.'],
];

/** Lint and format. @returns the first exit code that is not 0 */
async function look() {
  const codes = await Promise.all(LOOKS.map((given) => run(process.execPath, given)));
  return codes.find((code) => code !== 0) ?? 0;
}

/** The simulation takes all processors for minutes and knows no clock: it has what the other tests leave. What it says comes behind theirs. */
async function inTheBackground(project, others) {
  const file = join(mkdtempSync(join(tmpdir(), 'dwcp-tests-')), `${project}.log`);
  const log = openSync(file, 'w');
  const behind = run(
    'nice',
    ['-n', '19', process.execPath, '--enable-source-maps', JEST, '--selectProjects', project],
    { stdio: ['ignore', log, log] },
  );
  const code = await others();
  const own = await behind;
  process.stdout.write(readFileSync(file));
  rmSync(dirname(file), { recursive: true });
  return code === 0 ? own : code;
}

/** What one runs before each commit; types are checked by the build. On the newest Node the looks would say the same again. */
async function check() {
  const quick = ['--selectProjects', 'unit', 'contract', ...AT_A_TIME];
  if (args.includes('--newest-node')) {
    const node = newestNode();
    say(node ? `the quick tests on ${node}` : `this is Node ${process.versions.node} already`);
    return node ? jest(quick, node) : 0;
  }
  const [looked, tested] = await Promise.all([look(), jest(quick)]);
  return looked === 0 ? tested : looked;
}

const COMMANDS = {
  check,
  demo: () => run(process.execPath, [...cli, 'demo', ...args]),
  bench: () => run(process.execPath, [join(root, 'dist', 'bench', 'main.js'), ...args]),
  test: async () => {
    await locateServer();
    const looked = await look();
    if (looked !== 0) return looked;
    if (args.length > 0) return jest(args);
    // What starts no program says in minutes whether the rest is worth its time.
    const pure = await jest(['--selectProjects', ...PURE, ...AT_A_TIME]);
    if (pure !== 0) return pure;
    return inTheBackground('sim', () => jest(['--ignoreProjects', ...PURE, 'sim', ...AT_A_TIME]));
  },
  // Paths on the command line are relative to where it was given.
  dwcp: () => run(process.execPath, [...cli, ...args], { cwd: process.cwd() }),
};

forwardSignals();
await prepare();
process.exitCode = await (COMMANDS[command] ?? (() => fail(`there is no ${command} here`, 2)))();
