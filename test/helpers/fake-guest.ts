/**
 * A guest without a hypervisor: RAM in a buffer, a disk in a file, and a port through which it is moved as QEMU's driver does it,
 * with rounds, a dirty log, a pause and device state. What it writes, and when, is its test's; that it keeps the driver's
 * contract is test/contract/running-guest.suite.ts's. It does not move by a hypervisor's own means. Arriving: fake-receiver.ts.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { DeviceState, DiskPort, Extent, GuestPort, MemoryInfo, MemoryStart } from '../../src/hypervisor/contract';
import { GuestMemory } from '../../src/hypervisor/qemu/guest-memory';
import type { MayRun } from '../../src/hypervisor/qemu/source-guest';
import { DwcpError } from '../../src/model/errors';
import { type RamBlock, RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES, type VmImage } from '../../src/model/image';
import { after } from './waiting';

export const FAKE_SET_UP = { prefix: Buffer.from('the set-up of a fake guest'), sectionId: 7 };
const COMMANDS = Buffer.from('said between two sections');
const CHUNK_PAGES = 16;
const ZERO_PAGE = Buffer.alloc(PAGE_SIZE_BYTES);

type RunState = 'running' | 'stopped by its operator' | 'stopped for its move' | 'moved' | 'ended';

export class FakeGuest {
  readonly layout: RamLayout;
  readonly ram: Buffer;
  readonly diskPath: string;
  state: RunState = 'running';
  /** What it has written, one and all: its device state. */
  writes = 0;
  readonly dirtyPages = new Set<number>();
  readonly dirtyBlocks = new Set<number>();
  /** Bytes a second to its disk. */
  writesLimitedTo: number | undefined;
  /** Hears of the end of whatever watches it: its operator has stopped it, or it has ended. */
  stopped: (error: DwcpError) => void = () => undefined;

  constructor(ramBlocks: readonly RamBlock[], diskPath: string) {
    this.layout = new RamLayout(ramBlocks);
    this.ram = Buffer.alloc(this.layout.sizeBytes);
    this.diskPath = diskPath;
  }

  /** @param page of the RAM image @throws where it does not run */
  write(page: number, bytes: Buffer): void {
    this.#act();
    bytes.copy(this.ram, page * PAGE_SIZE_BYTES);
    this.dirtyPages.add(page);
  }

  writeDisk(offset: number, bytes: Buffer): void {
    this.#act();
    const file = openSync(this.diskPath, 'r+');
    writeSync(file, bytes, 0, bytes.length, offset);
    closeSync(file);
    for (let at = offset; at < offset + bytes.length; at += 1) this.dirtyBlocks.add(Math.floor(at / BLOCK_SIZE_BYTES));
  }

  operatorStops(): void {
    this.state = 'stopped by its operator';
    this.stopped(new DwcpError('GUEST_PAUSED', 'Somebody has paused the guest', { side: 'source' }));
  }

  end(): void {
    this.state = 'ended';
    this.stopped(new DwcpError('GUEST_LOST', 'The guest has ended', { side: 'source' }));
  }

  #act(): void {
    if (this.state !== 'running') throw new Error(`a guest that is ${this.state} writes nothing`);
    this.writes += 1;
  }
}

function take(from: Set<number>): number[] {
  const all = [...from].sort((a, b) => a - b);
  from.clear();
  return all;
}

export class FakeGuestPort implements GuestPort {
  readonly mirrorPath = '/nowhere';
  /** Called before each piece of a round, with how many pages of it have gone: here a test lets the guest write. */
  beforePiece: (round: number, pagesGone: number) => void = () => undefined;
  readonly #guest: FakeGuest;
  readonly #ifMayRun: MayRun;
  #memory: GuestMemory | undefined;
  #failed: (error: DwcpError) => void = () => undefined;
  /** Pages of this round that have not gone yet. */
  #left: number[] = [];
  #gone = 0;
  #rounds = 0;
  #held = false;
  #streaming = false;
  #pausing: (() => void) | undefined;
  #closed = false;

  constructor(guest: FakeGuest, ifMayRun: MayRun) {
    this.#guest = guest;
    this.#ifMayRun = ifMayRun;
    guest.stopped = (error) => this.#fail(error);
  }

  get leftOutBytes(): number {
    return this.#memory?.leftOutBytes ?? 0;
  }

  get memoryFd(): number {
    return this.#memory?.fd ?? -1;
  }

  onFailure(handler: (error: DwcpError) => void): void {
    this.#failed = handler;
  }

  watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskPort>> {
    this.#guest.dirtyBlocks.clear();
    return Promise.resolve(new Map(images.map(({ imageId, path }) => [imageId, this.#disk(path)])));
  }

  startMemory({ path, ramBlocks, blankPages, settled, events }: MemoryStart): Promise<void> {
    if (this.#guest.state !== 'running')
      return Promise.reject(new DwcpError('GUEST_PAUSED', 'The guest does not run', { side: 'source' }));
    this.#memory = new GuestMemory(path, new RamLayout(ramBlocks), blankPages, settled, events);
    this.#guest.dirtyPages.clear();
    this.#left = this.#guest.layout.blocks.flatMap(({ id, usedBytes }) =>
      Array.from(
        { length: usedBytes / PAGE_SIZE_BYTES },
        (_, page) => this.#guest.layout.startOf(id) / PAGE_SIZE_BYTES + page,
      ),
    );
    this.#rounds = 1;
    this.#streaming = true;
    this.#stream().catch((error: unknown) => this.#fail(error as DwcpError));
    return Promise.resolve();
  }

  startWhole(): Promise<void> {
    return Promise.reject(new Error('a fake guest has no stream of its own'));
  }

  mirrorDisks(): Promise<void> {
    return Promise.reject(new Error('a fake guest has no mirrors'));
  }

  mirrors(): Promise<readonly []> {
    return Promise.resolve([]);
  }

  finishMirrors(): Promise<void> {
    return Promise.resolve();
  }

  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
  }

  info(): Promise<MemoryInfo> {
    if (this.#closed) return Promise.reject(new DwcpError('QEMU_UNREACHABLE', 'It was let go of', { side: 'source' }));
    const pages = this.#left.length + this.#guest.dirtyPages.size;
    return Promise.resolve({
      rounds: this.#rounds,
      remainingBytes: pages * PAGE_SIZE_BYTES,
      dirtyBytesPerSecond: 0,
      throttle: 0,
    });
  }

  allowThrottle(): Promise<void> {
    return Promise.resolve();
  }

  async pause(stopped: (atMs: number) => void): Promise<void> {
    await new Promise<void>((resolve) => (this.#pausing = resolve));
    stopped(Date.now());
  }

  complete(): Promise<DeviceState> {
    const memory = this.#memory;
    if (!memory || this.#guest.state !== 'stopped for its move')
      return Promise.reject(new DwcpError('QEMU_REFUSED', 'The guest has not been paused', { side: 'source' }));
    this.#left.push(...take(this.#guest.dirtyPages));
    while (this.#left.length > 0) this.#piece(memory);
    memory.sectionEnded('end');
    this.#guest.state = 'moved';
    return Promise.resolve({
      commands: COMMANDS,
      devices: Buffer.from(JSON.stringify({ writes: this.#guest.writes })),
    });
  }

  standsStill(): Promise<boolean> {
    return Promise.resolve(this.#guest.state === 'moved' || this.#guest.state === 'ended');
  }

  async runOn(): Promise<void> {
    const guest = this.#guest;
    const mayRun = await this.#ifMayRun(() => {
      this.#streaming = false;
      guest.writesLimitedTo = undefined;
      if (guest.state === 'ended')
        return Promise.reject(new DwcpError('GUEST_LOST', 'The guest has ended', { side: 'source' }));
      if (guest.state !== 'stopped by its operator') guest.state = 'running';
      return Promise.resolve();
    });
    if (!mayRun) throw new DwcpError('ABANDONED', 'The guest is not this host’s to let run', { side: 'source' });
  }

  close(): void {
    this.#closed = true;
    this.#streaming = false;
    this.#memory?.close();
    this.#memory = undefined;
  }

  /** Its own disk, or one that it never writes. */
  #disk(path: string): DiskPort {
    const { diskPath, dirtyBlocks } = this.#guest;
    const read = (offset: number, into: Buffer): void => {
      const file = openSync(path, 'r');
      into.fill(0, readSync(file, into, 0, into.length, offset));
      closeSync(file);
    };
    return {
      read: (offset, into) => Promise.resolve().then(() => read(offset, into)),
      holes: () => Promise.resolve(zeroBlocks(path)),
      nextRound: () => Promise.resolve(path === diskPath ? take(dirtyBlocks).map(blockExtent) : []),
      dirtyBytes: () => Promise.resolve(path === diskPath ? dirtyBlocks.size * BLOCK_SIZE_BYTES : 0),
      limitWrites: (bytesPerSecond) => {
        this.#guest.writesLimitedTo = bytesPerSecond;
        return Promise.resolve(true);
      },
    };
  }

  /** QEMU's iterations: a piece of the round at a time, a round behind the other, for as long as nobody pauses or ends it. */
  async #stream(): Promise<void> {
    const memory = this.#memory;
    if (!memory) return;
    await after(1);
    memory.setUp(FAKE_SET_UP.prefix, FAKE_SET_UP.sectionId, this.#guest.layout.blocks);
    while (this.#streaming) {
      if (this.#pausing) {
        this.#guest.state = 'stopped for its move';
        this.#streaming = false;
        this.#pausing();
        return;
      }
      if (!this.#held) this.#iteration(memory);
      await after(1);
    }
  }

  #iteration(memory: GuestMemory): void {
    if (this.#left.length === 0) this.#nextRound();
    this.beforePiece(this.#rounds, this.#gone);
    this.#piece(memory);
    memory.sectionEnded('part');
  }

  #nextRound(): void {
    this.#left = take(this.#guest.dirtyPages);
    this.#gone = 0;
    this.#rounds += 1;
  }

  #piece(memory: GuestMemory): void {
    const { ram, layout } = this.#guest;
    for (const page of this.#left.splice(0, CHUNK_PAGES)) {
      const at = page * PAGE_SIZE_BYTES;
      const { block, offset } = layout.at(at);
      const bytes = ram.subarray(at, at + PAGE_SIZE_BYTES);
      if (bytes.equals(ZERO_PAGE)) memory.filledPage(block.id, offset, 0);
      else memory.page(block.id, offset, bytes);
      this.#gone += 1;
    }
  }

  #fail(error: DwcpError): void {
    this.#streaming = false;
    this.#failed(error);
    this.#failed = () => undefined;
  }
}

const blockExtent = (block: number): Extent => ({ offset: block * BLOCK_SIZE_BYTES, length: BLOCK_SIZE_BYTES });

function zeroBlocks(path: string): Extent[] {
  const file = openSync(path, 'r');
  const bytes = Buffer.alloc(BLOCK_SIZE_BYTES);
  const zeros: Extent[] = [];
  for (let block = 0; readSync(file, bytes, 0, bytes.length, block * BLOCK_SIZE_BYTES) === bytes.length; block += 1)
    if (bytes.every((byte) => byte === 0)) zeros.push(blockExtent(block));
  closeSync(file);
  return zeros;
}
