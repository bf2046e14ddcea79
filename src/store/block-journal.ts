/**
 * The destination's journal of one image: which blocks are durable, with their hashes. It is the truth about what has
 * arrived; a block stands in it only after the image's data has been synced. Big-endian:
 *
 *   head:     8 "DWCPJRN1"   4 length of JSON   JSON (BlockJournalHead)   8 XXH3-64 of all that
 *   record:   4 block   16 BLAKE3 of its content   4 check: first bytes of XXH3-64(block, hash, salt of the head)
 *   retract:  4 2^31 + number of a stretch of STRETCH_BLOCKS blocks   16 zero   4 check likewise
 *
 * Reading stops at the first record that does not check: what a crash cut off was never promised.
 *
 * A promise must hold for what is in the file, also when blocks are overwritten and the host or its agent dies before the
 * new content stands here. So before the first promised block of a stretch is overwritten its stretch is retracted, durably
 * and for good: none of its blocks is promised any more, by records before or behind it, and whoever opens the image reads
 * them from the file. That costs one sync for each stretch that is written twice, not one for each batch.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { HASH_BYTES, quickHash } from '../encoder/hash';
import { DwcpError } from '../model/errors';
import { blockCount, imageSpecSchema } from '../model/image';
import { readIfThere } from './durable-file';
import { makeFolderDurably, syncFolder } from './durable-folder';

const MAGIC = Buffer.from('DWCPJRN1', 'latin1');
const RECORD_BYTES = 24;
const SALT_BYTES = 8;
/** 256 MiB: 4096 stretches at most in a TiB, and little to read again for a guest that writes in few places. */
export const STRETCH_BLOCKS = 4096;
/** Above every block number (MAX_IMAGE_BYTES). */
const RETRACT = 2 ** 31;
const NO_HASH = Buffer.alloc(HASH_BYTES);

const headSchema = z.strictObject({
  migrationId: z.string(),
  image: imageSpecSchema,
  /** What the working image began as. */
  base: z.enum(['empty', 'baseline']),
});
export type BlockJournalHead = z.infer<typeof headSchema>;

export interface JournalledBlock {
  readonly block: number;
  readonly hash: Buffer;
}

function encodeHead(head: BlockJournalHead): Buffer {
  const json = Buffer.from(JSON.stringify(head), 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(json.length);
  const body = Buffer.concat([MAGIC, length, json]);
  return Buffer.concat([body, quickHash(body)]);
}

function encodeRecord(out: Buffer, at: number, { block, hash }: JournalledBlock, salt: Buffer): void {
  out.writeUInt32BE(block, at);
  hash.copy(out, at + 4, 0, HASH_BYTES);
  checkOf(out.subarray(at, at + 20), salt).copy(out, at + 20, 0, 4);
}

function checkOf(record: Buffer, salt: Buffer): Buffer {
  return quickHash(Buffer.concat([record, salt]));
}

/** The head and where the records begin; undefined where even the head is not whole. */
function decodeHead(bytes: Buffer): { head: BlockJournalHead; end: number; salt: Buffer } | undefined {
  if (bytes.length < 12 || !bytes.subarray(0, 8).equals(MAGIC)) return undefined;
  const end = 12 + bytes.readUInt32BE(8);
  if (end + SALT_BYTES > bytes.length) return undefined;
  const salt = bytes.subarray(end, end + SALT_BYTES);
  if (!quickHash(bytes.subarray(0, end)).equals(salt)) return undefined;
  return { head: headSchema.parse(JSON.parse(bytes.subarray(12, end).toString('utf8'))), end: end + SALT_BYTES, salt };
}

function stretchOf(block: number): number {
  return Math.floor(block / STRETCH_BLOCKS);
}

export class BlockJournal {
  readonly head: BlockJournalHead;
  readonly #file: FileHandle;
  readonly #salt: Buffer;
  #position: number;
  /** Stretches that have been retracted durably. */
  readonly #retracted: Set<number>;
  /** Stretches that the next sync retracts, for all who wait for it. */
  #retracting: { readonly stretches: Set<number>; readonly done: Promise<void> } | undefined;
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(
    head: BlockJournalHead,
    file: FileHandle,
    salt: Buffer,
    position: number,
    retracted: Set<number>,
  ) {
    this.head = head;
    this.#file = file;
    this.#salt = salt;
    this.#position = position;
    this.#retracted = retracted;
  }

  /** Starts a journal; it is durable when this returns. */
  static async create(path: string, head: BlockJournalHead): Promise<BlockJournal> {
    await makeFolderDurably(dirname(path));
    const bytes = encodeHead(head);
    const file = await open(path, 'w+', 0o600);
    try {
      await file.write(bytes, 0, bytes.length, 0);
      await file.sync();
      await syncFolder(dirname(path));
    } catch (error) {
      await file.close();
      throw error;
    }
    return new BlockJournal(head, file, bytes.subarray(bytes.length - SALT_BYTES), bytes.length, new Set());
  }

  /**
   * Opens a journal and hands every block that is still promised to `seen`.
   * @returns undefined where there is none, or where a crash left not even its head
   * @throws JOURNAL_CORRUPT where a record names a block outside the image
   */
  static async open(path: string, seen: (block: JournalledBlock) => void): Promise<BlockJournal | undefined> {
    const bytes = await readIfThere(path);
    const start = bytes && decodeHead(bytes);
    if (!bytes || !start) return undefined;
    const blocks = blockCount(start.head.image.sizeBytes);
    const retracted = new Set<number>();
    let end = start.end;
    for (; end + RECORD_BYTES <= bytes.length; end += RECORD_BYTES) {
      if (checkOf(bytes.subarray(end, end + 20), start.salt).compare(bytes, end + 20, end + 24, 0, 4) !== 0) break;
      const block = bytes.readUInt32BE(end);
      if (block >= RETRACT) retracted.add(block - RETRACT);
      else if (block >= blocks)
        throw new DwcpError('JOURNAL_CORRUPT', `${path} names block ${block}, which its image does not have`, {
          side: 'destination',
        });
    }
    for (let at = start.end; at < end; at += RECORD_BYTES) {
      const block = bytes.readUInt32BE(at);
      if (block < RETRACT && !retracted.has(stretchOf(block))) seen({ block, hash: bytes.subarray(at + 4, at + 20) });
    }
    const file = await open(path, 'r+');
    try {
      await file.truncate(end);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new BlockJournal(start.head, file, start.salt, end, retracted);
  }

  /** Adds blocks whose data is durable already; they are promised when this returns, but for those of retracted stretches. */
  append(blocks: readonly JournalledBlock[]): Promise<void> {
    return this.#inTurn(() => this.#write(blocks.filter(({ block }) => !this.#retracted.has(stretchOf(block)))));
  }

  /** These blocks were promised and are about to be overwritten: when this returns nothing here says any more what they hold. */
  async retract(blocks: readonly number[]): Promise<void> {
    const stretches = new Set(blocks.map(stretchOf).filter((stretch) => !this.#retracted.has(stretch)));
    if (stretches.size === 0) return;
    // Whoever comes while a sync is going on shares the next one.
    this.#retracting ??= this.#retractNext();
    for (const stretch of stretches) this.#retracting.stretches.add(stretch);
    await this.#retracting.done;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #retractNext(): { readonly stretches: Set<number>; readonly done: Promise<void> } {
    const stretches = new Set<number>();
    const done = this.#inTurn(async () => {
      this.#retracting = undefined;
      await this.#write([...stretches].map((stretch) => ({ block: RETRACT + stretch, hash: NO_HASH })));
      for (const stretch of stretches) this.#retracted.add(stretch);
    });
    return { stretches, done };
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const next = this.#writing.catch(() => undefined).then(step);
    this.#writing = next;
    return next;
  }

  async #write(records: readonly JournalledBlock[]): Promise<void> {
    if (records.length === 0) return;
    const out = Buffer.allocUnsafe(records.length * RECORD_BYTES);
    for (const [index, record] of records.entries()) encodeRecord(out, index * RECORD_BYTES, record, this.#salt);
    // A disk that fills up takes a part without an error, and what stands behind half a record is never read.
    for (let at = 0; at < out.length; )
      at += (await this.#file.write(out, at, out.length - at, this.#position + at)).bytesWritten;
    await this.#file.datasync();
    this.#position += out.length;
  }
}
