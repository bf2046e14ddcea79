/**
 * What every mover of bytes on an emulated link is, and what peers' processes have in common: a server on host b, a client on
 * host a, both ended after their time.
 */
import { spawn } from 'node:child_process';
import type { Child, Children } from '../src/cli/demo/children';
import { wait } from '../src/system/wait';
import type { SendLine } from './transport-ends';
import type { WanLink } from './wan-link';

const READY_MS = 700;

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

/** Nothing said: a mover that is no sender of ours. */
export const SILENT = {
  lines: [],
  explanations: [],
  finished: () => false,
  peakRssBytes: () => 0,
  rssBytes: [],
  dropHalf: () => undefined,
  kill: () => undefined,
  receiverReadBytes: () => 0,
};

export function on(
  children: Children,
  host: { readonly prefix: readonly string[] },
  args: readonly string[],
  output: 'pipe' | 'ignore' = 'ignore',
): Child {
  const [command = 'ip', ...rest] = [...host.prefix, ...args];
  return children.adopt(args[0] ?? command, spawn(command, rest, { stdio: ['ignore', output, 'inherit'] }), '');
}

export async function end(child: Child): Promise<void> {
  child.process.kill('SIGKILL');
  await child.ended;
}

/** A server that listens and a client that is waited for; both end after the time. */
export async function pair(server: () => Child, client: () => Child, seconds: number): Promise<Moving> {
  const receiver = server();
  await wait(READY_MS);
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
