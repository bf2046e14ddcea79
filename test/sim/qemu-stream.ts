/**
 * A simulated QEMU's migration, both ways, in QEMU's own stream format: going out in rounds with dirty tracking, a stop before the
 * switchover, device state; coming in through the product's reader. Run states and monitors are qemu.ts's.
 */
import {
  PAGE_FLAG,
  RAM_SECTION_VERSION,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
} from '../../src/hypervisor/qemu/migration-stream-format';
import { MigrationStreamReader } from '../../src/hypervisor/qemu/migration-stream-reader';
import { MigrationStreamWriter } from '../../src/hypervisor/qemu/migration-stream-writer';
import { type Guest, PAGE_BYTES, RAM_ID, type Registers, ROM_ID } from './guest';
import type { SimSocket } from './sim-net';

const SECTION_ID = 2;
const PAGES_AT_ONCE = 12;
/** A QEMU that is left waiting goes through ever smaller rounds; each costs steps and shows nothing new. */
const SLOWEST_ROUND_MS = 300;
const ACK_TYPE = 7;
/** A limit this long means: at the end of this round. */
const AT_ONCE_MS = 100_000;

/** What of a QEMU its migration works on. */
export interface MigratingQemu {
  readonly guest: Guest;
  post(label: string, act: () => void, delayMs?: number): void;
  connect(path: string): SimSocket;
  /** The guest goes on a little. */
  letGuestRun(): void;
  stopForMigration(): void;
  resumeAfterMigration(): void;
  completed(): void;
  event(name: string, data: Readonly<Record<string, unknown>>): void;
  random(): number;
}

export interface MigrationSettings {
  readonly events: boolean;
  readonly pauseBeforeSwitchover: boolean;
  readonly waitsForAck: boolean;
  downtimeLimitMs: number;
}

function text(value: string): Buffer {
  return Buffer.concat([Buffer.from([value.length]), Buffer.from(value, 'latin1')]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function prefixOf(guest: Guest): Buffer {
  const blocks = [
    [RAM_ID, guest.ram.length],
    [ROM_ID, guest.rom.length],
  ] as const;
  const total = guest.ram.length + guest.rom.length;
  const machine = 'pc-q35-10.0';
  return Buffer.concat([
    u32(STREAM_MAGIC),
    u32(STREAM_VERSION),
    Buffer.from([SECTION.configuration]),
    u32(machine.length),
    Buffer.from(machine),
    Buffer.from([SECTION.start]),
    u32(SECTION_ID),
    text('ram'),
    u32(0),
    u32(RAM_SECTION_VERSION),
    u64(total + PAGE_FLAG.memSize),
    ...blocks.flatMap(([id, bytes]) => [text(id), u64(bytes)]),
    u64(PAGE_FLAG.endOfSection),
    Buffer.from([SECTION.footer]),
    u32(SECTION_ID),
  ]);
}

export class OutgoingStream {
  status = 'setup';
  error: string | undefined;
  rounds = 0;
  transferred = 0;
  readonly settings: MigrationSettings;
  readonly #qemu: MigratingQemu;
  readonly #socket: SimSocket;
  readonly #writer: MigrationStreamWriter;
  /** Pages to send in this round, by number; those of the ROM behind those of the RAM. */
  #left: number[];
  #acknowledged = false;
  #stopped = false;
  /** What the other side does with it now is not this side's matter. */
  #allWritten = false;
  #back = Buffer.alloc(0);

  constructor(qemu: MigratingQemu, path: string, settings: MigrationSettings) {
    this.#qemu = qemu;
    this.settings = settings;
    this.#socket = qemu.connect(path);
    this.#writer = new MigrationStreamWriter(
      SECTION_ID,
      (bytes, done) => {
        this.transferred += bytes.length;
        this.#socket.write(bytes);
        done();
      },
      16 * 1024,
    );
    const pages = (qemu.guest.ram.length + qemu.guest.rom.length) / PAGE_BYTES;
    this.#left = Array.from({ length: pages }, (_, page) => page);
    qemu.guest.dirty.clear();
    this.#enter('setup');
    this.#socket.on('connect', () => this.#connected());
    this.#socket.on('error', () => this.#fails('Unable to write to socket: Broken pipe'));
    this.#socket.on('close', () => this.#fails('Unable to write to socket: Connection reset by peer'));
    this.#socket.on('data', (chunk: Buffer) => this.#hear(chunk));
  }

  get isOver(): boolean {
    return ['completed', 'failed', 'cancelled'].includes(this.status);
  }

  get remainingBytes(): number {
    return (this.#left.length + (this.#stopped ? 0 : this.#qemu.guest.dirty.size)) * PAGE_BYTES;
  }

  continue(): void {
    this.#enter('device');
    this.#qemu.post('sends its device state', () => this.#lastSection());
  }

  cancel(): void {
    if (this.isOver || this.status === 'cancelling') return;
    // It is nearly through: the cancel may come too late.
    if (this.status === 'device' && this.#qemu.random() < 0.5) return;
    this.#enter('cancelling');
    this.#qemu.post('cancels its migration', () => this.#end('cancelled'), 5);
  }

  #enter(status: string): void {
    this.status = status;
    if (this.settings.events) this.#qemu.event('MIGRATION', { status });
  }

  #connected(): void {
    if (this.status !== 'setup') return;
    this.#socket.write(prefixOf(this.#qemu.guest));
    this.#enter('active');
    this.rounds = 1;
    this.#again(2);
  }

  #again(delayMs: number): void {
    this.#qemu.post('goes on with its migration', () => this.#iterate(), delayMs);
  }

  #iterate(): void {
    if (this.status !== 'active') return;
    this.#qemu.letGuestRun();
    if (!this.#socket.hasRoom) {
      this.#socket.once('drain', () => this.#again(1));
      return;
    }
    if (this.#left.length > 0) {
      this.#section('part', this.#left.splice(0, PAGES_AT_ONCE));
      this.#again(1 + 2 * this.#qemu.random());
      return;
    }
    this.#round();
    const mayStop = !this.settings.waitsForAck || this.#acknowledged;
    if (mayStop && (this.settings.downtimeLimitMs >= AT_ONCE_MS || this.#left.length === 0)) this.#stop();
    else
      this.#again(
        this.#left.length === 0
          ? 20 + 40 * this.#qemu.random()
          : Math.min(SLOWEST_ROUND_MS, 1 + this.rounds ** 1.5 / 8),
      );
  }

  #round(): void {
    this.rounds += 1;
    const { dirty } = this.#qemu.guest;
    this.#left = [...dirty].sort((a, b) => a - b);
    dirty.clear();
  }

  #stop(): void {
    const again = this.#left;
    this.#qemu.stopForMigration();
    this.#stopped = true;
    this.#round();
    this.#left = [...new Set([...again, ...this.#left])];
    if (this.settings.pauseBeforeSwitchover) this.#enter('pre-switchover');
    else this.continue();
  }

  #lastSection(): void {
    if (this.status !== 'device') return;
    if (!this.#socket.hasRoom) {
      this.#socket.once('drain', () => this.#qemu.post('sends its device state', () => this.#lastSection()));
      return;
    }
    this.#section('end', this.#left.splice(0));
    const registers = Buffer.from(JSON.stringify(this.#qemu.guest.registers));
    this.#socket.write(
      Buffer.concat([Buffer.from([SECTION.full]), u32(registers.length), registers, Buffer.from([SECTION.endOfFile])]),
    );
    this.#allWritten = true;
    this.#socket.end();
    this.#qemu.post(
      'completes its migration',
      () => {
        if (this.status !== 'device') return;
        this.#qemu.completed();
        this.#enter('completed');
      },
      3,
    );
  }

  #section(kind: 'part' | 'end', pages: readonly number[]): void {
    const { ram, rom } = this.#qemu.guest;
    this.#writer.beginSection(kind);
    for (const page of pages) {
      const at = page * PAGE_BYTES;
      const [block, offset, memory] = at < ram.length ? [RAM_ID, at, ram] : [ROM_ID, at - ram.length, rom];
      const bytes = memory.subarray(offset, offset + PAGE_BYTES);
      if (bytes.equals(ZERO)) this.#writer.filledPage(block, offset, 0);
      else this.#writer.page(block, offset, bytes);
    }
    this.#writer.endSection();
  }

  #hear(chunk: Buffer): void {
    this.#back = Buffer.concat([this.#back, chunk]);
    while (this.#back.length >= 4) {
      const length = 4 + this.#back.readUInt16BE(2);
      if (this.#back.length < length) return;
      if (this.#back.readUInt16BE(0) === ACK_TYPE) this.#acknowledged = true;
      this.#back = this.#back.subarray(length);
    }
  }

  #fails(why: string): void {
    if (this.isOver || this.#allWritten || this.status === 'cancelling') return;
    this.error = why;
    this.#qemu.post('sees its migration fail', () => this.#end('failed'), 5);
  }

  #end(status: 'failed' | 'cancelled'): void {
    if (this.isOver) return;
    this.#socket.destroy();
    this.#enter(status);
    if (this.#stopped)
      this.#qemu.post('resumes by itself', () => this.#qemu.resumeAfterMigration(), status === 'failed' ? 10 : 0);
  }
}

const PING = 2;
/** On the return path: what comes, and how long it is. */
const PONG_HEAD = Buffer.from([0, 2, 0, 4]);
const ZERO = Buffer.alloc(PAGE_BYTES);

/** Takes a stream in. @throws what is wrong with it */
export class IncomingStream {
  readonly ram: Buffer;
  readonly rom: Buffer;
  readonly #reader: MigrationStreamReader;
  #device = Buffer.alloc(0);
  #ended = false;

  /** @param say what goes back to the source */
  constructor({ ram, rom }: Guest, say: (bytes: Buffer) => void) {
    this.ram = Buffer.alloc(ram.length);
    this.rom = Buffer.alloc(rom.length);
    const memoryOf = (block: string): Buffer => (block === RAM_ID ? this.ram : this.rom);
    this.#reader = new MigrationStreamReader({
      setUp: () => undefined,
      page: (block, offset, content) => void content.copy(memoryOf(block), offset),
      filledPage: (block, offset, fill) => void memoryOf(block).fill(fill, offset, offset + PAGE_BYTES),
      command: (bytes) => {
        if (bytes.readUInt16BE(1) === PING) say(Buffer.concat([PONG_HEAD, bytes.subarray(5, 9)]));
      },
      sectionEnded: (kind) => (this.#ended ||= kind === 'end'),
      deviceState: (bytes) => (this.#device = Buffer.concat([this.#device, bytes])),
    });
  }

  feed(chunk: Buffer): void {
    this.#reader.feed(chunk);
  }

  /** The stream has ended. @returns the guest's registers; undefined where it was not whole */
  registers(): Registers | undefined {
    if (!this.#ended || this.#device.length < 6) return undefined;
    const length = this.#device.readUInt32BE(1);
    if (this.#device.length < 5 + length + 1) return undefined;
    return JSON.parse(this.#device.toString('utf8', 5, 5 + length)) as Registers;
  }
}
