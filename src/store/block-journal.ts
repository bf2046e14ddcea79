/**
 * The destination's journal of one image: which blocks are durable, with their hashes. It is the truth about what has
 * arrived; a block stands in it only after the image's data has been synced. Big-endian:
 *
 *   head:    8 "DWCPJRN1"   4 length of JSON   JSON (BlockJournalHead)   8 XXH3-64 of all that
 *   record:  4 block   16 BLAKE3 of its content   4 check: first bytes of XXH3-64(block, hash, salt of the head)
 *
 * Reading stops at the first record that does not check: what a crash cut off was never promised.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { z } from 'zod';
import { HASH_BYTES, quickHash } from '../encoder/hash';
import { DwcpError } from '../model/errors';
import { blockCount, imageSpecSchema } from '../model/image';
import { readIfThere, syncFolder } from './durable-file';

const MAGIC = Buffer.from('DWCPJRN1', 'latin1');
const RECORD_BYTES = 24;
const SALT_BYTES = 8;

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

export class BlockJournal {
  readonly head: BlockJournalHead;
  readonly #file: FileHandle;
  readonly #salt: Buffer;
  #position: number;

  private constructor(head: BlockJournalHead, file: FileHandle, salt: Buffer, position: number) {
    this.head = head;
    this.#file = file;
    this.#salt = salt;
    this.#position = position;
  }

  /** Starts a journal; it is durable when this returns. */
  static async create(path: string, head: BlockJournalHead): Promise<BlockJournal> {
    await mkdir(dirname(path), { recursive: true });
    const bytes = encodeHead(head);
    const file = await open(path, 'w+', 0o600);
    await file.write(bytes, 0, bytes.length, 0);
    await file.sync();
    await syncFolder(dirname(path));
    return new BlockJournal(head, file, bytes.subarray(bytes.length - SALT_BYTES), bytes.length);
  }

  /**
   * Opens a journal and hands every durable block to `seen`.
   * @returns undefined where there is none, or where a crash left not even its head
   * @throws JOURNAL_CORRUPT where a record names a block outside the image
   */
  static async open(path: string, seen: (block: JournalledBlock) => void): Promise<BlockJournal | undefined> {
    const bytes = await readIfThere(path);
    const start = bytes && decodeHead(bytes);
    if (!bytes || !start) return undefined;
    let at = start.end;
    for (; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) {
      const record = bytes.subarray(at, at + 20);
      if (checkOf(record, start.salt).compare(bytes, at + 20, at + 24, 0, 4) !== 0) break;
      const block = record.readUInt32BE(0);
      if (block >= blockCount(start.head.image.sizeBytes)) {
        throw new DwcpError('JOURNAL_CORRUPT', `${path} names block ${block}, which its image does not have`, { side: 'destination' });
      }
      seen({ block, hash: record.subarray(4, 20) });
    }
    const file = await open(path, 'r+');
    await file.truncate(at);
    return new BlockJournal(start.head, file, start.salt, at);
  }

  /** Adds blocks whose data is durable already; they are promised when this returns. */
  async append(blocks: readonly JournalledBlock[]): Promise<void> {
    const out = Buffer.allocUnsafe(blocks.length * RECORD_BYTES);
    for (const [index, block] of blocks.entries()) encodeRecord(out, index * RECORD_BYTES, block, this.#salt);
    await this.#file.write(out, 0, out.length, this.#position);
    await this.#file.datasync();
    this.#position += out.length;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
