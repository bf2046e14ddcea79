/**
 * A sender's lanes in the simulated world: blocks that change, go out as frames, a few at a time, and are confirmed or lost. Who drives it
 * and what it is told of: sim-senders.ts.
 */
import { batchMetaBytes, writeBatchEntry, writeBatchHead } from '../../src/encoder/batch-format';
import { blockHash, ZERO_HASH } from '../../src/encoder/hash';
import { DwcpError, toDwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES, blockLength, type ImageSpec } from '../../src/model/image';
import type { Manifest } from '../../src/store/manifest';
import type { PageTable } from '../../src/sync/codec/page-table';
import type { BlockFeed } from '../../src/sync/feeds/block-feed';
import type { SentImage } from '../../src/sync/source/image-sender';
import type { Frame } from '../../src/transport/frame';
import type { Life } from './life';
import type { Load } from './loader';
import type { ProcessFiles } from './sim-fs';
import type { SimSendingSession } from './sim-transport';

const WINDOW = 3;

export interface Lane {
  readonly image: ImageSpec;
  readonly feed: BlockFeed;
  readonly source: Manifest;
  readonly pages: PageTable | undefined;
  held: Manifest;
  number: number;
  began: SentImage['began'];
  /** Blocks whose hash is that of what was read. */
  readonly hashed: Set<number>;
  looked: number;
  verified: number;
}

function frameOf(sequence: number, image: number, block: number, bytes: Buffer, hash: Buffer): Frame {
  const zero = hash.equals(ZERO_HASH);
  const length = zero ? 0 : bytes.length;
  const metaBytes = batchMetaBytes(1);
  const all = Buffer.alloc(metaBytes + length);
  writeBatchHead(all, { image, packing: 'stored', pieces: 0, gatheredBytes: length, entryCount: 1 });
  writeBatchEntry(all, 0, {
    block,
    encoding: zero ? 'zero' : 'full',
    pageBitmap: 0,
    length,
    hash,
    oldHash: Buffer.alloc(8),
  });
  if (!zero) bytes.copy(all, metaBytes);
  return {
    type: 'batch',
    sequence,
    metaBytes,
    payloadBytes: length,
    bytes: all,
    meta: all.subarray(0, metaBytes),
    payload: all.subarray(metaBytes),
  };
}

/** Sends what the feeds of some images name, over one session. */
export class BlockPump {
  readonly #parts: Parts;
  readonly #session: SimSendingSession;
  readonly #lanes: readonly Lane[];
  readonly #onTheWay = new Map<number, { readonly lane: Lane; readonly block: number; readonly hash: Buffer }>();
  #next: number;
  #looking = 0;
  #settle: ((error?: DwcpError) => void) | undefined;
  #over = false;

  constructor(parts: Parts, session: SimSendingSession, lanes: readonly Lane[], next: number) {
    this.#parts = parts;
    this.#session = session;
    this.#lanes = lanes;
    this.#next = next;
  }

  get next(): number {
    return this.#next;
  }

  get outstandingBytes(): number {
    return this.#onTheWay.size * BLOCK_SIZE_BYTES;
  }

  async run(signal: AbortSignal): Promise<void> {
    const abort = (): void => this.#end(toDwcpError(signal.reason, 'CANCELLED'));
    signal.addEventListener('abort', abort);
    this.#session.listener = {
      verified: (id, refused) => this.#verified(id, refused),
      failed: (error) => this.#end(error),
    };
    try {
      await new Promise<void>((resolve, reject) => {
        this.#settle = (error) => (error ? reject(error) : resolve());
        if (signal.aborted) abort();
        if (this.#session.ended) this.#end(new DwcpError('SESSION_LOST', 'The session has ended'));
        for (const { feed } of this.#lanes) feed.onMore?.(() => this.#pump());
        this.#pump();
      });
    } finally {
      signal.removeEventListener('abort', abort);
      this.#session.listener = undefined;
      while (this.#looking > 0) await this.#turn('waits for what is being read');
    }
  }

  fail(error: DwcpError): void {
    this.#end(error);
  }

  #turn(label: string): Promise<void> {
    return new Promise((resolve) => void this.#parts.life.post(label, resolve));
  }

  #pump(): void {
    while (!this.#over && this.#looking + this.#onTheWay.size < WINDOW) {
      const found = this.#take();
      if (!found) break;
      this.#looking += 1;
      this.#look(found.lane, found.block)
        .catch((error: unknown) => this.#end(toDwcpError(error, 'ENCODER_FAILED', { side: 'source' })))
        .finally(() => {
          this.#looking -= 1;
          this.#pump();
        });
    }
    const done = this.#lanes.every(({ feed }) => feed.remaining === 0 && feed.open !== true);
    if (done && this.#looking + this.#onTheWay.size === 0) this.#end();
  }

  #take(): { readonly lane: Lane; readonly block: number } | undefined {
    for (const lane of this.#lanes) {
      const selection = lane.feed.next(1);
      if (selection) return { lane, block: 'first' in selection ? selection.first : (selection.list[0] as number) };
    }
    return undefined;
  }

  async #look(lane: Lane, block: number): Promise<void> {
    const bytes = Buffer.alloc(blockLength(lane.image.sizeBytes, block));
    if (lane.feed.load) await lane.feed.load({ first: block, count: 1 }, bytes);
    else {
      await this.#turn(`encodes block ${block} of ${lane.image.imageId}`);
      this.#parts.files.read(lane.feed.file.fd, bytes, 0, bytes.length, block * BLOCK_SIZE_BYTES);
    }
    if (this.#over) return;
    const hash = blockHash(bytes);
    lane.source.set(block, hash);
    lane.hashed.add(block);
    lane.looked += 1;
    if (hash.equals(lane.held.hashOf(block))) {
      lane.feed.confirmed?.([block]);
      return;
    }
    const sequence = this.#next++;
    this.#onTheWay.set(sequence, { lane, block, hash });
    this.#session.sendBatch(frameOf(sequence, lane.number, block, bytes, hash));
  }

  #verified(id: number, refused: readonly number[]): void {
    const entry = this.#onTheWay.get(id);
    if (!entry) return;
    if (refused.length > 0) {
      this.#end(new DwcpError('INTERNAL', 'A block sent in full was refused'));
      return;
    }
    this.#onTheWay.delete(id);
    entry.lane.held.set(entry.block, entry.hash);
    entry.lane.verified += 1;
    entry.lane.feed.confirmed?.([entry.block]);
    this.#pump();
  }

  #end(error?: DwcpError): void {
    if (this.#over) return;
    this.#over = true;
    this.#settle?.(error);
  }
}

export interface Parts {
  readonly life: Life;
  readonly files: ProcessFiles;
  readonly load: Load;
}
