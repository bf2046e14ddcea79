/**
 * Finds a Temporal server to run, in order: a `temporal` named or on PATH, the user's cache folder, the SDK's download, a
 * build of the pinned module in tools/temporal-server. Each way that failed is remembered, so that a failure names all
 * of them with their reasons. A server that runs already (TEMPORAL_ADDRESS) is the caller's first question, not ours.
 */
import { execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { DwcpError, messageOf } from '../model/errors';
import { formatDuration } from '../model/units';

const run = promisify(execFile);

/** The pinned version, also in tools/temporal-server/go.mod. */
export const TEMPORAL_CLI_VERSION = '1.8.2';
const DOWNLOAD_TIMEOUT_MS = 120_000;
const BUILD_TIMEOUT_MS = 30 * 60_000;
/** Packages that the module compiles, for the progress line; being off by some does no harm. */
const ABOUT_PACKAGES = 1700;

export type Say = (line: string) => void;

export interface FoundBinary {
  readonly path: string;
  readonly how: string;
}

export function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'dwcp', `temporal-${TEMPORAL_CLI_VERSION}`);
}

/** @throws SERVER_UNAVAILABLE with every way tried and why it failed */
export async function findTemporalBinary(say: Say): Promise<FoundBinary> {
  const failed: string[] = [];
  for (const [how, find] of WAYS) {
    try {
      const path = await find(say);
      if (path !== undefined) return { path, how };
    } catch (error) {
      failed.push(`${how}: ${messageOf(error)}`);
    }
  }
  throw new DwcpError('SERVER_UNAVAILABLE', `No Temporal server could be had. Tried: ${failed.join('; ')}`, {
    side: 'control',
  });
}

type Way = (say: Say) => Promise<string | undefined>;

const cached = (): string => join(cacheFolder(), 'temporal');

const WAYS: readonly (readonly [string, Way])[] = [
  [
    'DWCP_TEMPORAL_CLI',
    async () => {
      const named = process.env.DWCP_TEMPORAL_CLI;
      if (!named) throw new Error('not set');
      return checked(named);
    },
  ],
  [
    'PATH',
    async () => {
      for (const folder of (process.env.PATH ?? '').split(delimiter)) {
        const path = join(folder, 'temporal');
        if (folder !== '' && (await isExecutable(path))) return checked(path);
      }
      throw new Error('no temporal on it');
    },
  ],
  [
    'cache',
    async () => {
      if (!(await isExecutable(cached()))) throw new Error(`nothing at ${cached()}`);
      return checked(cached());
    },
  ],
  ['download by the SDK', download],
  ['build from source', build],
];

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** A binary counts when it runs and says what it is. */
async function checked(path: string): Promise<string> {
  const { stdout } = await run(path, ['--version'], { timeout: 30_000 });
  if (!/temporal version/i.test(stdout)) throw new Error(`${path} does not call itself temporal`);
  return path;
}

/** In a process of its own: the SDK's download cannot be told to give up. */
async function download(say: Say): Promise<string> {
  say('Temporal server: asking the SDK to download it');
  await mkdir(cacheFolder(), { recursive: true });
  const { stdout } = await run(process.execPath, [join(__dirname, 'download-temporal.js'), cacheFolder()], {
    timeout: DOWNLOAD_TIMEOUT_MS,
  }).catch((error: unknown) => {
    const { stderr = '' } = error as { stderr?: string };
    throw new Error(stderr.trim().split('\n').at(-1) || 'it did not finish in time');
  });
  await rename(stdout.trim(), cached());
  return checked(cached());
}

async function goBinary(): Promise<string> {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/local/go/bin']) {
    if (folder !== '' && (await isExecutable(join(folder, 'go')))) return join(folder, 'go');
  }
  throw new Error('there is no Go on PATH');
}

async function build(say: Say): Promise<string> {
  const go = await goBinary();
  const module = join(__dirname, '..', '..', '..', 'tools', 'temporal-server');
  await mkdir(cacheFolder(), { recursive: true });
  const temporary = join(cacheFolder(), `temporal.${randomUUID()}.part`);
  say(`Temporal server: building version ${TEMPORAL_CLI_VERSION} from source, once, about 4 minutes`);
  try {
    await compile(go, module, temporary, say);
    await rename(temporary, cached());
  } finally {
    await rm(temporary, { force: true });
  }
  return checked(cached());
}

function compile(go: string, module: string, output: string, say: Say): Promise<void> {
  return new Promise((resolve, reject) => {
    const args = [
      'build',
      '-v',
      '-trimpath',
      '-ldflags',
      '-s -w',
      '-o',
      output,
      'github.com/temporalio/cli/cmd/temporal',
    ];
    const child = spawn(go, args, { cwd: module, stdio: ['ignore', 'ignore', 'pipe'], timeout: BUILD_TIMEOUT_MS });
    const startedAt = Date.now();
    let packages = 0;
    let tail = '';
    child.stderr.on('data', (chunk: Buffer) => {
      packages += chunk.toString('utf8').split('\n').length - 1;
      tail = (tail + chunk.toString('utf8')).slice(-2000);
    });
    const timer = setInterval(
      () =>
        say(
          `Temporal server: ${Math.min(99, Math.round((100 * packages) / ABOUT_PACKAGES))} % of its packages, ` +
            formatDuration(Date.now() - startedAt),
        ),
      15_000,
    );
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearInterval(timer);
      if (code === 0) resolve();
      else reject(new Error(`go build ended with ${signal ?? String(code)}: ${tail.trim().split('\n').at(-1) ?? ''}`));
    });
  });
}
