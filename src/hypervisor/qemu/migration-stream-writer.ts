/**
 * Builds the page sections of a migration stream for a destination's QEMU, from pages in any order. Keeps its own
 * account of the block named last: the reader's CONTINUE flags are worth nothing once pages change their order. Set-up
 * and device state are not built but passed on. Layout: migration-stream-format.ts.
 */
import { PAGE_BYTES, PAGE_FLAG, SECTION } from './migration-stream-format';

const MAX_SPARE = 16;
const LONGEST_RECORD = 8 + 1 + 255 + PAGE_BYTES;

export class MigrationStreamWriter {
  readonly #sectionId: number;
  readonly #write: (bytes: Buffer, done: () => void) => void;
  /** Buffers that have been written out: memory that is touched for the first time is the dearest part of a large one. */
  readonly #spare: Buffer[] = [];
  readonly #bufferBytes: number;
  #buffer: Buffer;
  #at = 0;
  #block: string | undefined;

  /** @param write takes pieces of up to `bufferBytes`, and says when it needs one no more */
  constructor(sectionId: number, write: (bytes: Buffer, done: () => void) => void, bufferBytes = 256 * 1024) {
    this.#sectionId = sectionId;
    this.#write = write;
    this.#bufferBytes = Math.max(bufferBytes, 2 * LONGEST_RECORD);
    this.#buffer = Buffer.allocUnsafe(this.#bufferBytes);
  }

  beginSection(kind: 'part' | 'end'): void {
    this.#reserve(5);
    this.#at = this.#buffer.writeUInt8(kind === 'end' ? SECTION.end : SECTION.part, this.#at);
    this.#at = this.#buffer.writeUInt32BE(this.#sectionId, this.#at);
  }

  page(block: string, offset: number, content: Buffer): void {
    this.#record(block, offset, PAGE_FLAG.page);
    this.#at += content.copy(this.#buffer, this.#at, 0, PAGE_BYTES);
  }

  filledPage(block: string, offset: number, fill: number): void {
    this.#record(block, offset, PAGE_FLAG.zero);
    this.#at = this.#buffer.writeUInt8(fill, this.#at);
  }

  endSection(): void {
    this.#reserve(13);
    this.#at = this.#buffer.writeBigUInt64BE(BigInt(PAGE_FLAG.endOfSection), this.#at);
    this.#at = this.#buffer.writeUInt8(SECTION.footer, this.#at);
    this.#at = this.#buffer.writeUInt32BE(this.#sectionId, this.#at);
    this.flush();
  }

  flush(): void {
    if (this.#at === 0) return;
    const buffer = this.#buffer;
    this.#write(buffer.subarray(0, this.#at), () => {
      if (this.#spare.length < MAX_SPARE) this.#spare.push(buffer);
    });
    this.#buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#bufferBytes);
    this.#at = 0;
  }

  #record(block: string, offset: number, flags: number): void {
    this.#reserve(LONGEST_RECORD);
    const named = this.#block !== block;
    const low = (offset % 2 ** 32) + flags + (named ? 0 : PAGE_FLAG.continue);
    this.#at = this.#buffer.writeUInt32BE(Math.floor(offset / 2 ** 32), this.#at);
    this.#at = this.#buffer.writeUInt32BE(low, this.#at);
    if (!named) return;
    this.#block = block;
    this.#at = this.#buffer.writeUInt8(block.length, this.#at);
    this.#at += this.#buffer.write(block, this.#at, 'latin1');
  }

  #reserve(bytes: number): void {
    if (this.#buffer.length - this.#at < bytes) this.flush();
  }
}
