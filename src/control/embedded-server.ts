/**
 * The embedded Temporal server: one process, one SQLite file, one machine. For demos, tests and small sites; a
 * production site runs the services of docker-compose.yml.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { Connection } from '@temporalio/client';
import { DwcpError, messageOf } from '../model/errors';
import { SEARCH_ATTRIBUTES } from '../model/names';
import { wait } from '../system/wait';
import { findTemporalBinary, type Say } from './temporal-binary';

export interface EmbeddedServerOptions {
  /** SQLite file; kept over restarts. */
  readonly dbFile: string;
  /** 127.0.0.1 (the default) or 0.0.0.0: the dev server's own parts reach one another only over these. */
  readonly address?: '127.0.0.1' | '0.0.0.0';
  /** 0 takes a free one. */
  readonly port?: number;
  /** 0 takes a free one; -1 shows no UI. */
  readonly uiPort?: number;
  /** Where the UI has payloads decrypted, as a browser reaches it. */
  readonly codecEndpoint?: string;
}

export interface EmbeddedServer {
  readonly address: string;
  readonly uiAddress: string | undefined;
  readonly process: ChildProcess;
  /** Resolves with the exit code when the server has ended. */
  readonly ended: Promise<number>;
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;

/** Below the ports that the system gives to outgoing connections, so that a free one stays free until it is used. */
const PORTS = { first: 12_000, count: 20_000 };
let nextPort = Math.floor(Math.random() * PORTS.count);

/** A port that nothing listens on; each call gives another one. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  for (let tries = 0; tries < 1000; tries += 1) {
    const port = PORTS.first + (nextPort++ % PORTS.count);
    if (await isFreePort(address, port)) return port;
  }
  throw new Error(`no free port on ${address}`);
}

export function isFreePort(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, address, () => server.close(() => resolve(true)));
  });
}

/** Starts a server and waits until it answers. @throws SERVER_UNAVAILABLE */
export async function startEmbeddedServer(options: EmbeddedServerOptions, say: Say): Promise<EmbeddedServer> {
  const { path } = await findTemporalBinary(say);
  const host = options.address ?? '127.0.0.1';
  const port = options.port || (await freePort(host));
  const uiPort = options.uiPort === 0 || options.uiPort === undefined ? await freePort(host) : options.uiPort;
  // Histories hold command lines and addresses.
  await mkdir(dirname(options.dbFile), { recursive: true, mode: 0o700 });
  const args = [
    'server',
    'start-dev',
    '--ip',
    host,
    '--port',
    String(port),
    '--db-filename',
    options.dbFile,
    '--log-level',
    'error',
    '--sqlite-pragma',
    'journal_mode=WAL',
    '--sqlite-pragma',
    'synchronous=1',
    '--ui-disable-news-fetch',
    ...(uiPort < 0 ? ['--headless'] : ['--ui-ip', host, '--ui-port', String(uiPort)]),
    ...(options.codecEndpoint === undefined ? [] : ['--ui-codec-endpoint', options.codecEndpoint]),
    ...Object.entries(SEARCH_ATTRIBUTES).flatMap(([name, type]) => [
      '--search-attribute',
      `${name}=${{ KEYWORD: 'Keyword', BOOL: 'Bool', INT: 'Int' }[type]}`,
    ]),
  ];
  const child = spawn(path, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let tail = '';
  child.stderr.on('data', (chunk: Buffer) => (tail = (tail + chunk.toString('utf8')).slice(-2000)));
  const ended = new Promise<number>((resolve) => {
    child.once('close', (code) => resolve(code ?? 1));
    child.once('error', () => resolve(1));
  });
  const address = `127.0.0.1:${port}`;
  try {
    await answering(address, ended);
  } catch (cause) {
    child.kill('SIGKILL');
    const last = tail.trim().split('\n').at(-1) ?? '';
    throw new DwcpError(
      'SERVER_UNAVAILABLE',
      `The Temporal server (${path}) did not start: ${last || messageOf(cause)}`,
      { side: 'control', cause },
    );
  }
  return {
    address,
    uiAddress: uiPort < 0 ? undefined : `http://127.0.0.1:${uiPort}`,
    process: child,
    ended,
    stop: () => stop(child, ended),
  };
}

async function answering(address: string, ended: Promise<number>): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  const state = { over: false };
  void ended.then(() => (state.over = true));
  while (!state.over) {
    try {
      const connection = await Connection.connect({ address, connectTimeout: 2000 });
      await connection.workflowService.describeNamespace({ namespace: 'default' });
      await connection.close();
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await wait(200);
    }
  }
  throw new Error('it ended at once');
}

async function stop(child: ChildProcess, ended: Promise<number>): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  await ended;
  clearTimeout(timer);
}
