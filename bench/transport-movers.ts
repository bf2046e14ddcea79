/**
 * Whatever moves bytes from host a to host b for a while, on an emulated link that is up: our own sender with its tuner or
 * a fixed number of streams, and the peers. Each ends by itself or is ended after its time.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Child, Children } from '../src/cli/demo/children';
import { findTool } from '../src/cli/demo/tools';
import { say } from './report';
import type { ReceiveOrder, SendLine, SendOrder, ShareLine, ShareOrder } from './transport-ends';
import type { WanLink } from './wan-link';

const ENDS = join(__dirname, 'transport-ends.js');
const PORT = 9876;
const READY_MS = 700;
/** Connections that rclone takes where nobody says how many. */
const RCLONE_DEFAULT = 4;

export interface Place {
  /** Owns what is started: none of it outlives the bench. */
  readonly children: Children;
  readonly link: WanLink;
  readonly folder: string;
  readonly image: string;
}

/** A mover under way. */
export interface Moving {
  readonly ended: Promise<unknown>;
  /** What our own sender has said, as it says it. */
  readonly lines: readonly SendLine[];
  readonly explanations: readonly string[];
  readonly finished: () => boolean;
  /** Of the larger of our two processes, bytes; 0 for peers. */
  readonly peakRssBytes: () => number;
  /** The same, now and twice a second before. */
  readonly rssBytes: readonly number[];
  /** Every other connection is ended by the receiver, as by a fault. */
  readonly dropHalf: () => void;
  /** Both ends die at once. */
  readonly kill: () => void;
  /** What the receiving process has read so far, files and connections. */
  readonly receiverReadBytes: () => number;
  stop(): Promise<void>;
}

export interface Mover {
  readonly name: string;
  start(place: Place, seconds: number): Promise<Moving>;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Nothing said: a mover that is no sender of ours. */
const SILENT = {
  lines: [],
  explanations: [],
  finished: () => false,
  peakRssBytes: () => 0,
  rssBytes: [],
  dropHalf: () => undefined,
  kill: () => undefined,
  receiverReadBytes: () => 0,
};

function on(
  children: Children,
  host: { readonly prefix: readonly string[] },
  args: readonly string[],
  output: 'pipe' | 'ignore' = 'ignore',
): Child {
  const [command = 'ip', ...rest] = [...host.prefix, ...args];
  return children.adopt(args[0] ?? command, spawn(command, rest, { stdio: ['ignore', output, 'inherit'] }), '');
}

async function end(child: Child): Promise<void> {
  child.process.kill('SIGKILL');
  await child.ended;
}

/** A server that listens and a client that is waited for; both end after the time. */
async function pair(server: () => Child, client: () => Child, seconds: number): Promise<Moving> {
  const receiver = server();
  await pause(READY_MS);
  const sender = client();
  const timer = setTimeout(() => sender.process.kill('SIGKILL'), seconds * 1000);
  return {
    ...SILENT,
    ended: sender.ended,
    stop: async () => {
      clearTimeout(timer);
      await end(sender);
      await end(receiver);
    },
  };
}

export function iperf3(streams: number): Mover {
  return {
    name: `iperf3 x${streams}`,
    start: ({ children, link }, seconds) =>
      pair(
        () => on(children, link.b, ['iperf3', '-s', '-1', '-B', link.b.address]),
        () => on(children, link.a, ['iperf3', '-c', link.b.address, '-t', String(seconds), '-P', String(streams)]),
        seconds + 5,
      ),
  };
}

const NODE_RECEIVER = `require('net').createServer((s) => s.resume().on('error', () => {})).listen(8740, process.argv[1])`;
const NODE_SENDER =
  `const s = require('net').connect(8740, process.argv[1]); const b = Buffer.alloc(65536, 7); const go = () => { ` +
  `while (s.write(b)); }; s.on('connect', go).on('drain', go).on('error', () => process.exit())`;

export const nodeTcp: Mover = {
  name: 'node tcp x1',
  start: ({ children, link }, seconds) =>
    pair(
      () => on(children, link.b, [process.execPath, '-e', NODE_RECEIVER, link.b.address]),
      () => on(children, link.a, [process.execPath, '-e', NODE_SENDER, link.b.address]),
      seconds,
    ),
};

export const rsync: Mover = {
  name: 'rsync',
  start: ({ children, link, folder, image }, seconds) => {
    const arrivals = join(folder, 'rsync');
    rmSync(arrivals, { recursive: true, force: true });
    mkdirSync(arrivals, { recursive: true });
    // The daemon's child for a connection outlives it, and would keep its file for as long as a link that is gone is silent.
    const config = join(folder, 'rsyncd.conf');
    writeFileSync(
      config,
      `use chroot = no\nuid = root\ngid = root\ntimeout = 10\n[in]\npath = ${arrivals}\nread only = no\n`,
    );
    return pair(
      () =>
        on(children, link.b, [
          'rsync',
          '--daemon',
          '--no-detach',
          '--config',
          config,
          '--port',
          '8730',
          '--address',
          link.b.address,
        ]),
      () =>
        on(children, link.a, ['rsync', '--inplace', '--whole-file', image, `rsync://${link.b.address}:8730/in/image`]),
      seconds,
    );
  },
};

/** rclone takes a file in pieces over as many connections as it is told; served by rclone itself. */
export function rclone(streams: number): Mover {
  return {
    name: `rclone x${streams}`,
    start: ({ children, link, folder, image }, seconds) => {
      const arrivals = join(folder, 'rclone');
      rmSync(arrivals, { recursive: true, force: true });
      mkdirSync(arrivals, { recursive: true });
      const [dir, file] = [image.slice(0, image.lastIndexOf('/')), image.slice(image.lastIndexOf('/') + 1)];
      return pair(
        () =>
          on(children, link.a, [
            'rclone',
            'serve',
            'http',
            dir,
            '--addr',
            `${link.a.address}:8750`,
            '--config',
            '/dev/null',
            '--quiet',
          ]),
        () =>
          on(children, link.b, [
            'rclone',
            'copyto',
            `:http:${file}`,
            join(arrivals, 'image'),
            '--http-url',
            `http://${link.a.address}:8750`,
            '--multi-thread-streams',
            String(streams),
            '--multi-thread-cutoff',
            '1M',
            '--config',
            '/dev/null',
            '--quiet',
          ]),
        seconds,
      );
    },
  };
}

export interface DwcpSetting {
  readonly name: string;
  readonly streams?: number;
  /** Folder of the sender's history; kept between runs where it is named. */
  readonly history?: string;
  readonly bandwidthLimit?: number;
  readonly image?: string;
  readonly addresses?: readonly string[];
  /** Name of a session that goes on where an earlier run of the same name was left: both ends keep their folders. */
  readonly resumed?: string;
}

let sessions = 0;

/** Our receiving end on host b, and a sender on host a that is told where it is. */
async function ours(
  { children, link, folder }: Place,
  role: 'send' | 'share',
  order: (number: number, agentKey: string) => object,
  kept?: string,
): Promise<{ sender: Child; receiver: Child; stop: () => Promise<void> }> {
  const number = ++sessions;
  const received: ReceiveOrder = { dataDir: join(folder, `b-${kept ?? number}`), port: PORT };
  const receiver = on(children, link.b, [process.execPath, ENDS, 'receive', JSON.stringify(received)], 'pipe');
  const agentKey = await firstLine(receiver);
  const sender = on(children, link.a, [process.execPath, ENDS, role, JSON.stringify(order(number, agentKey))], 'pipe');
  const stop = async (): Promise<void> => {
    await end(sender);
    await end(receiver);
    if (kept === undefined) rmSync(received.dataDir, { recursive: true, force: true });
  };
  return { sender, receiver, stop };
}

function hear(child: Child, heard: (line: object) => void): void {
  if (child.process.stdout)
    createInterface(child.process.stdout).on('line', (text) => heard(JSON.parse(text) as object));
}

export function dwcp({
  name,
  streams,
  history,
  bandwidthLimit = 0,
  image: other,
  addresses,
  resumed,
}: DwcpSetting): Mover {
  return {
    name,
    start: async (place, seconds) => {
      const { link, folder, image } = place;
      const { sender, receiver, stop } = await ours(
        place,
        'send',
        (number, agentKey): SendOrder => ({
          dataDir: join(folder, history ?? `a-${resumed ?? number}`),
          addresses: addresses ?? [link.b.address],
          port: PORT,
          agentKey,
          image: other ?? image,
          sessionId: `transport-${resumed ?? number}`,
          seconds,
          minStreams: streams ?? 4,
          maxStreams: streams ?? 256,
          bandwidthLimit,
        }),
        resumed,
      );
      const lines: SendLine[] = [];
      const explanations: string[] = [];
      let finished = false;
      let peakRssBytes = 0;
      const rssBytes: number[] = [];
      const watch = setInterval(() => {
        peakRssBytes = Math.max(peakRssBytes, memoryOf(sender, 'VmHWM'), memoryOf(receiver, 'VmHWM'));
        rssBytes.push(Math.max(memoryOf(sender, 'VmRSS'), memoryOf(receiver, 'VmRSS')));
      }, 500);
      hear(sender, (heard) => {
        const line = heard as Partial<SendLine> & { explain?: string; finished?: boolean };
        if (line.explain !== undefined) explanations.push(line.explain);
        else if (line.finished) finished = true;
        else lines.push(line as SendLine);
      });
      return {
        ended: sender.ended,
        lines,
        explanations,
        finished: () => finished,
        peakRssBytes: () => peakRssBytes,
        rssBytes,
        dropHalf: () => receiver.process.kill('SIGUSR2'),
        kill: () => [sender, receiver].forEach((end) => end.process.kill('SIGKILL')),
        receiverReadBytes: () => Number(/rchar: (\d+)/.exec(procFile(receiver, 'io'))?.[1] ?? 0),
        stop: async () => {
          clearInterval(watch);
          await stop();
        },
      };
    },
  };
}

/** Two migrations of one host, with these priorities, under one limit of the host. @param heard hears what each has sent */
export function sharedLimit(
  priorities: readonly number[],
  hostBandwidthLimit: number,
  heard: (line: ShareLine) => void,
): Mover {
  return {
    name: `dwcp shared limit ${priorities.join(':')}`,
    start: async (place, seconds) => {
      const { link, folder, image } = place;
      const { sender, stop } = await ours(
        place,
        'share',
        (number, agentKey): ShareOrder => ({
          dataDir: join(folder, `a-${number}`),
          address: link.b.address,
          port: PORT,
          agentKey,
          image,
          seconds,
          hostBandwidthLimit,
          priorities,
        }),
      );
      hear(sender, (line) => heard(line as ShareLine));
      return { ...SILENT, ended: sender.ended, stop };
    },
  };
}

function memoryOf(child: Child, field: 'VmHWM' | 'VmRSS'): number {
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(procFile(child, 'status'))?.[1] ?? 0) * 1024;
}

/** Empty once the process has gone. */
function procFile({ process: { pid = 0 } }: Child, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    return '';
  }
}

function firstLine(child: Child): Promise<string> {
  return new Promise((resolve, reject) => {
    void child.ended.then(() => reject(new Error('the receiving end did not start')));
    if (child.process.stdout)
      createInterface(child.process.stdout).once('line', (text) =>
        resolve((JSON.parse(text) as { agentKey: string }).agentKey),
      );
  });
}

/** The peers, installed where they can be; one that cannot is said, and left out. */
export async function peersFor(streams: number, children: Children): Promise<Mover[]> {
  const movers: Mover[] = [nodeTcp];
  if (await findTool('iperf3', 'iperf3', children, say)) movers.push(iperf3(1), iperf3(streams));
  if (await findTool('rsync', 'rsync', children, say)) movers.push(rsync);
  if (await findTool('rclone', 'rclone', children, say)) movers.push(rclone(RCLONE_DEFAULT), rclone(streams));
  return movers;
}
