/**
 * A batch in parts, for the end of a transfer: a stream that has been idle carries one initial window of TCP (ten segments)
 * in the first round trip, so a batch that is larger goes over several streams at once. Each part is a frame of its own;
 * together they are the batch's frame, byte for byte.
 *
 *   PART   sequence = batch id
 *   meta:  0  2  number of this part, from 0      2  2  how many there are      4  4  bytes of the whole frame
 *   payload: its piece; all but the last one are PART_BYTES long
 */
import { DwcpError } from '../model/errors';
import { KIB, MIB } from '../model/units';
import { buildFrame, type Frame, type FrameType, openFrame, readHeader } from './frame';
import type { Run, Slab } from './slab';

/** With its header it fits ten segments of 1448 bytes. */
export const PART_BYTES = 13 * KIB;
/** Larger batches go as they are: then their size is what takes the time. */
export const MOST_IN_PARTS_BYTES = 512 * KIB;
const META_BYTES = 8;
/** Batches of which a part is missing; the oldest have been given up by their sender. */
const MAX_INCOMPLETE = 256;
const MAX_INCOMPLETE_BYTES = 16 * MIB;
/** Their sender has sent them again, under another number, long before. */
const GIVEN_UP_AFTER_MS = 30_000;
const BATCH_ONLY: ReadonlySet<FrameType> = new Set(['batch']);

/** Frames of the parts of a sealed batch frame; they do not share its memory. */
export function partsOf(id: number, frame: Buffer): Buffer[] {
  const count = Math.ceil(frame.length / PART_BYTES);
  return Array.from({ length: count }, (_, number) => {
    const meta = Buffer.alloc(META_BYTES);
    meta.writeUInt16BE(number, 0);
    meta.writeUInt16BE(count, 2);
    meta.writeUInt32BE(frame.length, 4);
    return buildFrame('part', id, meta, frame.subarray(number * PART_BYTES, (number + 1) * PART_BYTES));
  });
}

interface Incomplete {
  readonly run: Run;
  readonly bytes: Buffer;
  readonly missing: Set<number>;
  readonly begunAt: number;
}

/** The receiving side: puts parts together, in whatever order and over whatever streams they come. */
export class BatchAssembly {
  readonly #slab: Slab;
  readonly #incomplete = new Map<number, Incomplete>();
  #bytes = 0;

  constructor(slab: Slab) {
    this.#slab = slab;
  }

  /**
   * Takes a part in. @returns the batch and its memory, which is the caller's from then on, once it is whole; undefined
   * where parts are missing, or where there is no memory: then the sender sends it again
   * @throws PROTOCOL_VIOLATION, FRAME_CORRUPT
   */
  add({ sequence, meta, payload }: Frame): { readonly frame: Frame; readonly run: Run } | undefined {
    if (meta.length !== META_BYTES) throw violation('has a head of another length');
    const [number, count, totalBytes] = [meta.readUInt16BE(0), meta.readUInt16BE(2), meta.readUInt32BE(4)];
    const length = Math.min(PART_BYTES, totalBytes - number * PART_BYTES);
    if (
      totalBytes > MOST_IN_PARTS_BYTES ||
      count !== Math.ceil(totalBytes / PART_BYTES) ||
      number >= count ||
      payload.length !== length
    )
      throw violation('does not fit its batch');
    const batch = this.#incomplete.get(sequence) ?? this.#begin(sequence, count, totalBytes);
    if (!batch) return undefined;
    if (batch.bytes.length !== totalBytes) throw violation('is of a batch of another length');
    payload.copy(batch.bytes, number * PART_BYTES);
    batch.missing.delete(number);
    if (batch.missing.size > 0) return undefined;
    this.#incomplete.delete(sequence);
    this.#bytes -= totalBytes;
    try {
      return { frame: openFrame(readHeader(batch.bytes, BATCH_ONLY), batch.bytes), run: batch.run };
    } catch (error) {
      this.#slab.free(batch.run);
      throw error;
    }
  }

  /** Gives up what has not become whole in time: its memory is the slab's. */
  forgetOld(): void {
    const before = performance.now() - GIVEN_UP_AFTER_MS;
    for (const [sequence, { begunAt }] of this.#incomplete) if (begunAt < before) this.#forget(sequence);
  }

  close(): void {
    for (const sequence of [...this.#incomplete.keys()]) this.#forget(sequence);
  }

  #begin(sequence: number, count: number, totalBytes: number): Incomplete | undefined {
    for (const oldest of this.#incomplete.keys()) {
      if (this.#incomplete.size < MAX_INCOMPLETE && this.#bytes + totalBytes <= MAX_INCOMPLETE_BYTES) break;
      this.#forget(oldest);
    }
    const run = this.#slab.take(totalBytes);
    if (!run) return undefined;
    const batch = {
      run,
      bytes: run.bytes.subarray(0, totalBytes),
      begunAt: performance.now(),
      missing: new Set(Array.from({ length: count }, (_, number) => number)),
    };
    this.#incomplete.set(sequence, batch);
    this.#bytes += totalBytes;
    return batch;
  }

  #forget(sequence: number): void {
    const batch = this.#incomplete.get(sequence);
    if (!batch) return;
    this.#incomplete.delete(sequence);
    this.#bytes -= batch.bytes.length;
    this.#slab.free(batch.run);
  }
}

function violation(what: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', `A part of a batch ${what}`);
}
