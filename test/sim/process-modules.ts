/**
 * Modules of Node and of the product that reach other processes, for one life of an agent: child_process (QEMUs and what they
 * say of themselves), worker_threads (each job an event), and the NBD client (a QEMU's exports without the protocol).
 */
import { EventEmitter } from 'node:events';
import { promisify } from 'node:util';
import { DwcpError } from '../../src/model/errors';
import { type Module, only } from './fs-modules';
import type { SimHost } from './host';
import type { Life } from './life';
import { type Globals, type Program, SHADOWED } from './loader';
import { nbdServersOf, type QemuDisk, type SimQemu } from './qemu';
import type { ProcessFiles } from './sim-fs';

const BLOCK_BYTES = 64 * 1024;

function saysOfItself(args: readonly string[]): string {
  if (args.includes('--version')) return 'QEMU emulator version 10.0.2 (sim)\n';
  if (args.includes('-machine'))
    return 'Supported machines are:\npc-q35-10.0          Standard PC (Q35 + ICH9, 2009)\nq35                  (alias of pc-q35-10.0)\n';
  return 'Available CPUs:\n  max\n  qemu64\n';
}

export function childProcessModule(host: SimHost, life: Life, files: ProcessFiles): Module {
  const spawn = (
    program: string,
    args: readonly string[],
    options: { readonly stdio?: readonly unknown[] } = {},
  ): EventEmitter => {
    const child = Object.assign(new EventEmitter(), {
      pid: 0,
      unref: () => undefined,
      ref: () => undefined,
      kill: (signal: string) => host.signal(child.pid, signal),
      stderr: new EventEmitter(),
      stdout: new EventEmitter(),
      exitCode: null,
    });
    const log = options.stdio?.[1];
    const node = typeof log === 'number' ? files.file(log, 'spawn').node : undefined;
    const qemu = host.startQemu([program, ...args], (line) => {
      if (node) host.disk.write(node, Buffer.from(`${line}\n`), node.now.size);
    });
    child.pid = qemu.life.pid;
    qemu.life.onEnd(() => life.post('hears that its child has ended', () => child.emit('exit', 1, null)));
    return child;
  };
  const execFile = (_program: string, args: readonly string[], ...rest: unknown[]): void => {
    const done = rest.at(-1) as (error: Error | null, stdout: string, stderr: string) => void;
    life.post('a program answers', () => done(null, saysOfItself(args), ''), 20);
  };
  Object.defineProperty(execFile, promisify.custom, {
    value: (_program: string, args: readonly string[]) =>
      new Promise(
        (resolve) => void life.post('a program answers', () => resolve({ stdout: saysOfItself(args), stderr: '' }), 20),
      ),
  });
  return only('node:child_process', { spawn, execFile });
}

/** What the one worker module that all lives share sees as its files, for the time of a job. */
export interface CodecFiles {
  readonly fs: Module;
  readonly systemCalls: Module;
}

let current: CodecFiles | undefined;
const codecs = new WeakMap<Program, (message: unknown) => readonly unknown[]>();

/** A job is done in one go and leaves nothing behind, so its code (and its buffers) need not be loaded for each life. */
function codecOf(program: Program): (message: unknown) => readonly unknown[] {
  const known = codecs.get(program);
  if (known) return known;
  let inbox: (message: unknown) => void = () => undefined;
  let replies: unknown[] = [];
  const parentPort = {
    on: (_event: string, listener: (message: unknown) => void) => (inbox = listener),
    postMessage: (reply: unknown) => void replies.push(reply),
  };
  const through = (of: () => Module): Module => new Proxy({}, { get: (_target, name) => of()[name as string] });
  const none = (): never => {
    throw new Error('sim: a codec job outside a job');
  };
  const fs = through(() => current?.fs ?? none());
  const systemCalls = through(() => current?.systemCalls ?? none());
  const globals = Object.fromEntries(SHADOWED.map((name) => [name, undefined]));
  program.start({ ...globals, performance: { now: () => 0 }, process } as unknown as Globals, (name) =>
    name === 'node:worker_threads'
      ? { parentPort }
      : name === 'node:fs'
        ? fs
        : name === 'src/store/system-calls'
          ? systemCalls
          : undefined,
  )('src/sync/codec/codec-worker');
  const run = (message: unknown): readonly unknown[] => {
    replies = [];
    inbox(message);
    return replies;
  };
  codecs.set(program, run);
  return run;
}

export function workerThreadsModule(life: Life, program: Program, files: CodecFiles): Module {
  class Worker extends EventEmitter {
    unref(): void {
      return;
    }

    ref(): void {
      return;
    }

    terminate(): Promise<number> {
      this.removeAllListeners();
      return Promise.resolve(0);
    }

    postMessage(message: unknown): void {
      life.post('a worker thread does a job', () => {
        current = files;
        try {
          for (const reply of codecOf(program)(message))
            life.post('a worker thread answers', () => this.emit('message', reply));
        } finally {
          current = undefined;
        }
      });
    }
  }
  return only('node:worker_threads', { Worker, parentPort: undefined, isMainThread: true, threadId: 0 });
}

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

function unreadable(why: string): DwcpError {
  return new DwcpError('IMAGE_UNREADABLE', `QEMU's NBD server: ${why}`, { side: 'source' });
}

export function nbdClientModule(host: SimHost, life: Life): Module {
  /** Asks a QEMU, in its own time; it may die before it answers. */
  const ask = <T>(qemu: SimQemu, label: string, act: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      const answer = (settle: () => void): void => void life.post('an NBD answer', settle);
      const gone = (): void => answer(() => reject(unreadable('it closed the connection')));
      qemu.life.onEnd(gone);
      qemu.life.post(label, () => {
        try {
          const value = act();
          answer(() => resolve(value));
        } catch (error) {
          answer(() => reject(unreadable(String(error))));
        }
      });
      if (!qemu.life.alive) gone();
    });

  class NbdClient {
    readonly sizeBytes: number;
    readonly #qemu: SimQemu;
    readonly #name: string;
    readonly #context: string | undefined;

    static async connect(path: string, exportName: string, context?: string): Promise<NbdClient> {
      const qemu = nbdServersOf(host.disk).get(path);
      if (!qemu?.life.alive) throw unreadable(`connect ENOENT ${path}`);
      const disk = await ask(qemu, 'an NBD client connects', () => qemu.exported(exportName).disk);
      return new NbdClient(qemu, exportName, context, disk);
    }

    constructor(qemu: SimQemu, name: string, context: string | undefined, disk: QemuDisk) {
      this.#qemu = qemu;
      this.#name = name;
      this.#context = context;
      this.sizeBytes = disk.sizeBytes;
    }

    async read(offset: number, into: Buffer): Promise<void> {
      await ask(this.#qemu, 'is read by NBD', () => {
        const { disk } = this.#qemu.exported(this.#name);
        disk.model.read(disk.node, into, offset);
      });
    }

    extents(): Promise<Extent[]> {
      return ask(this.#qemu, 'is asked for extents', () => {
        const { disk, dirty } = this.#qemu.exported(this.#name);
        return Array.from({ length: disk.blocks }, (_, block) => ({
          offset: block * BLOCK_BYTES,
          length: BLOCK_BYTES,
          flags: this.#context === 'base:allocation' ? allocation(disk, block) : dirty?.has(block) ? 1 : 0,
        }));
      });
    }

    close(): void {
      return;
    }
  }

  const zeroExtents = async (path: string, exportName: string): Promise<Extent[]> => {
    const client = await NbdClient.connect(path, exportName, 'base:allocation');
    return (await client.extents()).filter(({ flags }) => (flags & 2) !== 0);
  };
  return only('nbd-client', { NbdClient, zeroExtents });
}

/** In base:allocation, 3 where nothing is. */
function allocation({ model, node }: QemuDisk, block: number): number {
  const data = model.nextData(node, block * BLOCK_BYTES);
  return data === undefined || data >= (block + 1) * BLOCK_BYTES ? 3 : 0;
}
