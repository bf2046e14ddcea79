/**
 * Our own sender and receiver as movers, with the tuner or a fixed number of streams, on an emulated link that is up. Each ends by
 * itself or is ended after its time; the peers are transport-peers.ts.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Child } from '../src/cli/demo/children';
import { end, type Mover, on, type Place, SILENT } from './movers';
import type { ReceiveOrder, SendLine, SendOrder, ShareLine, ShareOrder } from './transport-ends';

const ENDS = join(__dirname, 'transport-ends.js');
const PORT = 9876;

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
