/**
 * A fake guest that is arriving: given what changes in the RAM image from its file, block by block, then loaded, then let run.
 * What it has loaded outlives its receiver, as a QEMU outlives an agent. The guest that it comes from is fake-guest.ts's.
 */
import type {
  DeviceState,
  GuestReceiver,
  GuestSetUp,
  ProcessIdentity,
  WholePlaces,
} from '../../src/hypervisor/contract';
import { readStretch } from '../../src/hypervisor/qemu/guest-memory';
import { DwcpError } from '../../src/model/errors';
import { type RamBlock, RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, blockCount } from '../../src/model/image';
import { FakeGuest } from './fake-guest';
import { after } from './waiting';

interface FakeProcess {
  readonly pid: number;
  readonly guest: FakeGuest;
  /** The state that it has loaded, whole. */
  loaded: string | undefined;
}

/** They live until they are ended, whoever has started them. */
const processes = new Map<number, FakeProcess>();
/** Above every number of a real process; none is given twice. */
let lastPid = 2 ** 22;

export class FakeReceiver implements GuestReceiver {
  /** Nothing is loaded while this is so, and whoever waits for it waits. */
  stalls = false;
  readonly #layout: RamLayout;
  readonly #diskPath: string;
  readonly #unfed = new Set<number>();
  #image: { readonly fd: number; readonly isZero: (block: number) => boolean } | undefined;
  #process: FakeProcess | undefined;
  #feeding: Promise<void> | undefined;

  constructor(ramBlocks: readonly RamBlock[], diskPath: string) {
    this.#layout = new RamLayout(ramBlocks);
    this.#diskPath = diskPath;
    this.#markAll();
  }

  /** The guest as far as it has come. */
  get guest(): FakeGuest | undefined {
    return this.#process?.guest;
  }

  get process(): ProcessIdentity | undefined {
    return this.#process && { pid: this.#process.pid, startTicks: 1 };
  }

  get leftBytes(): number {
    return [...this.#unfed].filter((block) => !this.#image?.isZero(block)).length * BLOCK_SIZE_BYTES;
  }

  begin(_setUp: GuestSetUp, fd: number, isZero: (block: number) => boolean): void {
    this.#image = { fd, isZero };
    if (this.#process?.loaded !== undefined) this.#end();
    this.#process ??= this.#start();
    this.#kick();
  }

  ready(): Promise<void> {
    return Promise.resolve();
  }

  changed(blocks: readonly number[]): void {
    for (const block of blocks) this.#unfed.add(block);
    this.#kick();
  }

  async load({ devices }: DeviceState): Promise<void> {
    const state = devices.toString('utf8');
    if (this.#process?.loaded === state) return;
    if (this.#process?.loaded !== undefined) {
      this.#end();
      this.#process = this.#start();
    }
    const process = this.#process;
    if (!process || !this.#image)
      throw new DwcpError('QEMU_PROTOCOL', 'The set-up has not come', { side: 'destination' });
    while ((this.stalls || this.#unfed.size > 0) && this.#process === process) {
      this.#kick();
      await this.#feeding;
      await after(1);
    }
    if (this.#process !== process)
      throw new DwcpError('SUPERSEDED', 'The guest was begun anew, or given up', { side: 'destination' });
    process.guest.writes = (JSON.parse(state) as { writes: number }).writes;
    process.loaded = state;
  }

  receiveWhole(): Promise<WholePlaces> {
    return Promise.reject(new Error('a fake guest does not move by its own means'));
  }

  loadWhole(): Promise<void> {
    return Promise.reject(new Error('a fake guest does not move by its own means'));
  }

  adopt({ pid }: ProcessIdentity): Promise<'loaded' | 'running' | 'neither' | undefined> {
    const found = processes.get(pid);
    if (!found) return Promise.resolve(undefined);
    this.#process = found;
    if (found.guest.state === 'running') return Promise.resolve('running');
    return Promise.resolve(found.loaded === undefined ? 'neither' : 'loaded');
  }

  run(): Promise<{ resumedAtMs: number; responds: boolean }> {
    if (this.#process?.loaded === undefined)
      return Promise.reject(new DwcpError('QEMU_REFUSED', 'Nothing is loaded', { side: 'destination' }));
    this.#process.guest.state = 'running';
    return Promise.resolve({ resumedAtMs: Date.now(), responds: true });
  }

  release(): void {
    this.#image = undefined;
  }

  breakOff(): void {
    if (!this.#process) return;
    this.#end();
    this.#process = this.#start();
  }

  discard(): Promise<void> {
    this.#image = undefined;
    this.#end();
    return Promise.resolve();
  }

  #start(): FakeProcess {
    const guest = new FakeGuest(this.#layout.blocks, this.#diskPath);
    guest.state = 'stopped for its move';
    lastPid += 1;
    const process = { pid: lastPid, guest, loaded: undefined };
    processes.set(process.pid, process);
    this.#markAll();
    return process;
  }

  #end(): void {
    if (!this.#process) return;
    this.#process.guest.end();
    processes.delete(this.#process.pid);
    this.#process = undefined;
  }

  #markAll(): void {
    for (let block = 0; block < blockCount(this.#layout.sizeBytes); block += 1) this.#unfed.add(block);
  }

  #kick(): void {
    this.#feeding ??= this.#feed().finally(() => (this.#feeding = undefined));
  }

  /** One block after the other; what changes meanwhile is given again. */
  async #feed(): Promise<void> {
    for (const block of this.#unfed) {
      await after(0);
      if (!this.#image || !this.#process) return;
      const start = block * BLOCK_SIZE_BYTES;
      readStretch(this.#image.fd, this.#process.guest.ram.subarray(start, start + BLOCK_SIZE_BYTES), start);
      this.#unfed.delete(block);
    }
  }
}
