/**
 * Takes QEMU's migration stream apart as it arrives, in pieces of any size: the set-up as a whole, pages one by one,
 * the end of each section, device state as it is. Remembers at most a piece of a record. Layout:
 * migration-stream-format.ts.
 *
 *   prefix -> (section head -> records ... footer)* -> device state, passed on to the end
 */
import type { RamBlock } from '../../model/guest';
import {
  FLAG_MASK,
  notUnderstood,
  PAGE_BYTES,
  PAGE_FLAG,
  RAM_SECTION_VERSION,
  SECTION,
  STREAM_LIMITS,
  STREAM_MAGIC,
  STREAM_VERSION,
} from './migration-stream-format';

/** What the reader finds. Buffers are views that hold only during the call. */
export interface MigrationStreamHandler {
  /** Everything up to the first page, to be given to the destination's QEMU as it is. */
  setUp(prefix: Buffer, sectionId: number, blocks: readonly RamBlock[]): void;
  page(block: string, offset: number, content: Buffer): void;
  filledPage(block: string, offset: number, fill: number): void;
  /** Something that QEMU says between two sections, to be passed on in its place. */
  command(bytes: Buffer): void;
  /** All records of an iteration have been given; after `end` no page follows. */
  sectionEnded(kind: 'part' | 'end'): void;
  deviceState(bytes: Buffer): void;
}

type State = 'prefix' | 'section' | 'records' | 'footer' | 'device';

/** Thrown within, where the bytes at hand are not enough. */
const MORE = Symbol('more');

const HEAD_BYTES = 8;

export class MigrationStreamReader {
  readonly #handler: MigrationStreamHandler;
  #state: State = 'prefix';
  #rest: Buffer = Buffer.alloc(0);
  #sectionId = 0;
  #kind: 'part' | 'end' = 'part';
  #blocks = new Map<string, number>();
  #block: string | undefined;

  constructor(handler: MigrationStreamHandler) {
    this.#handler = handler;
  }

  /** @throws STREAM_NOT_UNDERSTOOD; the reader is of no use afterwards */
  feed(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length > 0) {
      const taken = this.#step(bytes);
      if (taken === 0) break;
      bytes = bytes.subarray(taken);
    }
    if (bytes.length > STREAM_LIMITS.prefixBytes) throw notUnderstood('a set-up that does not end');
    this.#rest = bytes.length === 0 ? bytes : Buffer.from(bytes);
  }

  /** @returns bytes used up; 0 where more are needed */
  #step(bytes: Buffer): number {
    switch (this.#state) {
      case 'prefix':
        return this.#prefix(bytes);
      case 'section':
        return this.#section(bytes);
      case 'records':
        return this.#records(bytes);
      case 'footer':
        return this.#footer(bytes);
      case 'device':
        this.#handler.deviceState(bytes);
        return bytes.length;
    }
  }

  #prefix(bytes: Buffer): number {
    try {
      const cursor = new Cursor(bytes);
      if (cursor.u32() !== STREAM_MAGIC) throw notUnderstood('no QEVM at its head');
      const version = cursor.u32();
      if (version !== STREAM_VERSION) throw notUnderstood(`version ${version}`);
      this.#skipConfiguration(cursor);
      this.#readRamSetUp(cursor);
      this.#handler.setUp(
        bytes.subarray(0, cursor.at),
        this.#sectionId,
        [...this.#blocks].map(([id, usedBytes]) => ({ id, usedBytes })),
      );
      this.#state = 'section';
      return cursor.at;
    } catch (error) {
      if (error === MORE) return 0;
      throw error;
    }
  }

  /** The configuration's subsections have no length in front: each has to be known by its name. */
  #skipConfiguration(cursor: Cursor): void {
    if (cursor.peek() !== SECTION.configuration) return;
    cursor.u8();
    cursor.take(cursor.bounded(cursor.u32(), 4096, 'a machine name'));
    while (cursor.peek() === 0x05) {
      cursor.u8();
      const name = cursor.text();
      cursor.u32();
      skipSubsectionBody(name, cursor);
    }
    while (cursor.peek() === SECTION.command) {
      cursor.u8();
      cursor.u16();
      cursor.take(cursor.u16());
    }
  }

  #readRamSetUp(cursor: Cursor): void {
    const type = cursor.u8();
    if (type !== SECTION.start) throw notUnderstood(`section type ${type} where RAM should begin`);
    this.#sectionId = cursor.u32();
    const name = cursor.text();
    if (name !== 'ram') throw notUnderstood(`a section "${name}" that goes on while the guest runs`);
    cursor.u32();
    const version = cursor.u32();
    if (version !== RAM_SECTION_VERSION) throw notUnderstood(`RAM in version ${version}`);
    const size = cursor.u64();
    if ((size & FLAGS) !== BigInt(PAGE_FLAG.memSize)) throw notUnderstood('no list of RAM blocks');
    const total = Number(size & ~FLAGS);
    if (total > STREAM_LIMITS.ramBytes) throw notUnderstood(`${total} bytes of RAM`);
    this.#blocks.clear();
    for (let seen = 0; seen < total; ) {
      const id = cursor.text();
      const usedBytes = Number(cursor.u64());
      if (
        usedBytes === 0 ||
        seen + usedBytes > total ||
        this.#blocks.has(id) ||
        this.#blocks.size >= STREAM_LIMITS.blocks
      )
        throw notUnderstood('a list of RAM blocks that does not add up');
      this.#blocks.set(id, usedBytes);
      seen += usedBytes;
    }
    if (cursor.u64() !== BigInt(PAGE_FLAG.endOfSection))
      throw notUnderstood('more than a list of RAM blocks in the set-up');
    this.#readFooter(cursor);
  }

  #section(bytes: Buffer): number {
    const type = bytes.readUInt8(0);
    if (type === SECTION.command) return this.#command(bytes);
    if (type !== SECTION.part && type !== SECTION.end) throw notUnderstood(`section type ${type} among pages`);
    if (bytes.length < 5) return 0;
    const id = bytes.readUInt32BE(1);
    if (id !== this.#sectionId) throw notUnderstood(`pages of section ${id}, which has not been begun`);
    this.#kind = type === SECTION.end ? 'end' : 'part';
    this.#state = 'records';
    return 5;
  }

  #command(bytes: Buffer): number {
    if (bytes.length < 5) return 0;
    const length = 5 + bytes.readUInt16BE(3);
    if (bytes.length < length) return 0;
    this.#handler.command(bytes.subarray(0, length));
    return length;
  }

  /** As many records as are whole. */
  #records(bytes: Buffer): number {
    let at = 0;
    while (this.#state === 'records') {
      const length = this.#record(bytes, at);
      if (length === 0) break;
      at += length;
    }
    return at;
  }

  /** @returns its length; 0 where it is not whole */
  #record(bytes: Buffer, start: number): number {
    if (bytes.length - start < HEAD_BYTES) return 0;
    const low = bytes.readUInt32BE(start + 4);
    const flags = low & FLAG_MASK;
    const offset = bytes.readUInt32BE(start) * 2 ** 32 + (low - flags);
    let at = start + HEAD_BYTES;
    if (flags === PAGE_FLAG.endOfSection) {
      this.#state = 'footer';
      return HEAD_BYTES;
    }
    if ((flags & ~(PAGE_FLAG.zero | PAGE_FLAG.page | PAGE_FLAG.continue)) !== 0)
      throw notUnderstood(`page flags 0x${flags.toString(16)}`);
    let block = this.#block;
    if ((flags & PAGE_FLAG.continue) === 0) {
      if (bytes.length - at < 1) return 0;
      const length = bytes.readUInt8(at);
      if (bytes.length - at < 1 + length) return 0;
      block = bytes.toString('latin1', at + 1, at + 1 + length);
      at += 1 + length;
    }
    const size = block === undefined ? undefined : this.#blocks.get(block);
    if (block === undefined || size === undefined)
      throw notUnderstood(`a page of block "${block ?? ''}", which is not in the set-up`);
    if (offset + PAGE_BYTES > size)
      throw notUnderstood(`a page at ${offset} of block ${block}, which has ${size} bytes`);
    const full = (flags & PAGE_FLAG.page) !== 0;
    if (full === ((flags & PAGE_FLAG.zero) !== 0)) throw notUnderstood(`page flags 0x${flags.toString(16)}`);
    const contentBytes = full ? PAGE_BYTES : 1;
    if (bytes.length - at < contentBytes) return 0;
    this.#block = block;
    if (full) this.#handler.page(block, offset, bytes.subarray(at, at + PAGE_BYTES));
    else this.#handler.filledPage(block, offset, bytes.readUInt8(at));
    return at + contentBytes - start;
  }

  #footer(bytes: Buffer): number {
    try {
      const cursor = new Cursor(bytes);
      this.#readFooter(cursor);
      this.#state = this.#kind === 'end' ? 'device' : 'section';
      this.#handler.sectionEnded(this.#kind);
      return cursor.at;
    } catch (error) {
      if (error === MORE) return 0;
      throw error;
    }
  }

  #readFooter(cursor: Cursor): void {
    const mark = cursor.u8();
    if (mark !== SECTION.footer) throw notUnderstood('a section without a footer');
    const id = cursor.u32();
    if (id !== this.#sectionId) throw notUnderstood(`the footer of section ${id} behind section ${this.#sectionId}`);
  }
}

const FLAGS = BigInt(FLAG_MASK);

/**
 * A subsection's fields are typed by the machine, not by the stream; what machines put into the configuration is the target
 * page size (u32), a list of capabilities (u32 count, names) or a UUID (16 bytes). Which one it is, its name has said.
 */
function skipSubsectionBody(name: string, cursor: Cursor): void {
  if (name === 'configuration/target-page-bits') cursor.u32();
  else if (name === 'configuration/uuid') cursor.take(16);
  else if (name === 'configuration/capabilities') {
    for (let count = cursor.bounded(cursor.u32(), 256, 'capabilities'); count > 0; count -= 1) cursor.take(cursor.u8());
  } else throw notUnderstood(`a configuration "${name}"`);
}

/** Reads forwards; says MORE where the bytes end. */
class Cursor {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(count: number): Buffer {
    if (this.#bytes.length - this.at < count) throw MORE;
    const piece = this.#bytes.subarray(this.at, this.at + count);
    this.at += count;
    return piece;
  }

  peek(): number {
    if (this.#bytes.length - this.at < 1) throw MORE;
    return this.#bytes.readUInt8(this.at);
  }

  u8(): number {
    const value = this.peek();
    this.at += 1;
    return value;
  }

  u16(): number {
    if (this.#bytes.length - this.at < 2) throw MORE;
    this.at += 2;
    return this.#bytes.readUInt16BE(this.at - 2);
  }

  u32(): number {
    if (this.#bytes.length - this.at < 4) throw MORE;
    this.at += 4;
    return this.#bytes.readUInt32BE(this.at - 4);
  }

  u64(): bigint {
    if (this.#bytes.length - this.at < 8) throw MORE;
    this.at += 8;
    return this.#bytes.readBigUInt64BE(this.at - 8);
  }

  text(): string {
    return this.take(this.u8()).toString('latin1');
  }

  bounded(value: number, limit: number, what: string): number {
    if (value > limit) throw notUnderstood(`${value} of ${what}`);
    return value;
  }
}
