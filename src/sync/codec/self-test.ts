/**
 * What an agent does with its threads before the first migration asks: it encodes known bytes and decodes them again, in every
 * way that is common. An encoder that cannot undo its own work is found here, and code that has run once runs faster: the
 * first seconds of the first migration are not spent on compiling.
 */
import { randomFillSync } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { encodedBound } from '../../encoder/batch-encoder';
import { DwcpError, messageOf } from '../../model/errors';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { HEADER_BYTES, readHeader } from '../../transport/frame';
import type { CodecPool } from './codec-pool';
import { PageTable } from './page-table';
import { shareReferences } from './reference-index';
import { shareVersions } from './version-cache';

const BATCH_BLOCKS = 8;
/** Each of a lane's batches so many times, in a new version each time. */
const ROUNDS = 12;
const LEVELS = [3, 1, 6];
const BATCH: ReadonlySet<'batch'> = new Set(['batch']);

/** @param folder for two files that have no name while they are used @throws ENCODER_FAILED */
export async function selfTest(pool: CodecPool, folder: string): Promise<void> {
  const lanes = 2 * pool.threads;
  const sizeBytes = lanes * BATCH_BLOCKS * BLOCK_SIZE_BYTES;
  const [source, destination] = await Promise.all([
    scratch(folder, 'source', sizeBytes),
    scratch(folder, 'destination', sizeBytes),
  ]);
  try {
    const image = new TestImage(pool, source, destination, sizeBytes);
    await Promise.all(Array.from({ length: lanes }, (_, lane) => image.throughAndBack(lane * BATCH_BLOCKS)));
  } finally {
    await Promise.all([source.close(), destination.close()]);
  }
}

class TestImage {
  readonly #pool: CodecPool;
  readonly #source: FileHandle;
  readonly #destination: FileHandle;
  readonly #sizeBytes: number;
  readonly #hashes: Manifest;
  readonly #held: Manifest;
  readonly #arrived: Manifest;
  readonly #pages: PageTable;
  readonly #versions: ReturnType<typeof shareVersions>;
  readonly #references: ReturnType<typeof shareReferences>;

  constructor(pool: CodecPool, source: FileHandle, destination: FileHandle, sizeBytes: number) {
    [this.#pool, this.#source, this.#destination, this.#sizeBytes] = [pool, source, destination, sizeBytes];
    [this.#hashes, this.#held, this.#arrived] = [
      new Manifest(sizeBytes),
      new Manifest(sizeBytes),
      new Manifest(sizeBytes),
    ];
    this.#pages = new PageTable(this.#hashes.blocks);
    this.#versions = shareVersions(this.#hashes.blocks);
    this.#references = shareReferences(sizeBytes / PAGE_SIZE_BYTES);
  }

  /** A batch's blocks in version after version, one half of them text and one half noise. */
  async throughAndBack(first: number): Promise<void> {
    const blocks = { first, count: BATCH_BLOCKS };
    const memory = new SharedArrayBuffer(HEADER_BYTES + encodedBound(BATCH_BLOCKS));
    const content = contentOf(first);
    for (let round = 0; round < ROUNDS; round += 1) {
      randomFillSync(content, ((round % BATCH_BLOCKS) + 0.5) * BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES / 2);
      await this.#source.write(content, 0, content.length, first * BLOCK_SIZE_BYTES);
      const file = { fd: this.#source.fd, sizeBytes: this.#sizeBytes };
      if (round === 1)
        await this.#pool.run({ kind: 'index', file, first, count: BATCH_BLOCKS, shared: this.#references, from: 0 });
      const encoded = await this.#pool.run({
        kind: 'encode',
        file,
        blocks,
        plain: round % 4 === 3,
        source: this.#hashes.memory,
        held: this.#held.memory,
        pages: 'send',
        pageTable: this.#pages.shared,
        versions: this.#versions,
        references: { shared: this.#references },
        settings: { compress: true, level: LEVELS[round % LEVELS.length] ?? 3, delta: true, deltaThreshold: 0.7 },
        imageNumber: 0,
        sequence: round,
        out: { memory, offset: 0, length: memory.byteLength },
      });
      if (encoded.frameBytes === 0) continue;
      const { metaBytes, payloadBytes } = readHeader(Buffer.from(memory, 0, HEADER_BYTES), BATCH);
      const target = { fd: this.#destination.fd, sizeBytes: this.#sizeBytes };
      const decoded = await this.#pool
        .run({
          kind: 'decode',
          file: target,
          held: this.#arrived.memory,
          references: [{ ...file, from: 0 }],
          dictionaries: [],
          frame: { memory, offset: HEADER_BYTES, metaBytes, payloadBytes },
        })
        .catch((cause: unknown) => {
          throw new DwcpError(
            'ENCODER_FAILED',
            `The self-test failed: what was encoded cannot be decoded: ${messageOf(cause)}`,
            { cause },
          );
        });
      for (const block of encoded.sent) {
        const same = decoded.accepted.includes(block) && this.#arrived.hashOf(block).equals(this.#hashes.hashOf(block));
        if (!same)
          throw new DwcpError(
            'ENCODER_FAILED',
            `The self-test failed: block ${block} in version ${round} did not come out as it went in`,
          );
        this.#held.set(block, this.#hashes.hashOf(block));
        this.#pages.confirm(block);
      }
    }
  }
}

function contentOf(first: number): Buffer {
  const content = Buffer.alloc(BATCH_BLOCKS * BLOCK_SIZE_BYTES);
  for (let at = 0, line = 0; at < content.length / 2; line += 1)
    at += content.write(
      `${line} of ${first}: ${(line * 2_654_435_761) % 1_000_003} went from here to there\n`,
      at,
      'latin1',
    );
  randomFillSync(content, content.length / 2);
  return content;
}

async function scratch(folder: string, name: string, sizeBytes: number): Promise<FileHandle> {
  const path = join(folder, `self-test-${name}.tmp`);
  const file = await open(path, 'w+', 0o600);
  try {
    await rm(path);
    await file.truncate(sizeBytes);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
