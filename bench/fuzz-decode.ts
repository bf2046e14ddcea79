/**
 * Batches and extents that were valid, made wrong, for what takes them in: the decoder in this thread, over an image in memory; and the
 * worker threads of a destination, over a real file, as many times fewer as a job of theirs takes longer.
 */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BatchDecoder } from '../src/encoder/batch-decoder';
import { BATCH_HEAD_BYTES, ENTRY_BYTES, readBatchHead } from '../src/encoder/batch-format';
import { shareDictionary } from '../src/encoder/trained-dictionary';
import { MIB } from '../src/model/units';
import { Manifest } from '../src/store/manifest';
import { CodecPool } from '../src/sync/codec/codec-pool';
import { EXTENT_META_BYTES, sha256, writeExtentMeta } from '../src/sync/codec/extent-format';
import { BATCHES, type BatchExample, HELD, HELD_IMAGE, IMAGE_BYTES } from './fuzz-batches';
import { type Field, mutateBytes } from './fuzz-bytes';
import type { Draw } from './fuzz-draw';
import { Finding, type Outcome, outcomeOf, refusal, type Target } from './fuzz-target';

const HEAD_FIELDS: readonly Field[] = [
  { at: 0, size: 2 },
  { at: 2, size: 1 },
  { at: 3, size: 1 },
  { at: 4, size: 4 },
  { at: 8, size: 4 },
];
const ENTRY_FIELDS: readonly Field[] = [0, 1, 2, 3].flatMap((entry): Field[] => {
  const at = BATCH_HEAD_BYTES + entry * ENTRY_BYTES;
  return [
    { at, size: 4 },
    { at: at + 4, size: 1 },
    { at: at + 6, size: 2 },
    { at: at + 8, size: 4 },
    { at: at + 28, size: 8 },
  ];
});
const BATCH_FIELDS = [...HEAD_FIELDS, ...ENTRY_FIELDS];
/** Tables of pieces, ids, lengths of planes and splits. */
const PAYLOAD_FIELDS: readonly Field[] = [0, 4, 8, 12].map((at): Field => ({ at, size: 4 }));
const EXTENT_FIELDS: readonly Field[] = [
  { at: 0, size: 8 },
  { at: 8, size: 8 },
  { at: 16, size: 1 },
];

/** Lengths that add up again, so that what lies behind that check is reached. */
function addUp(meta: Buffer): void {
  let sum = 0;
  for (let at = BATCH_HEAD_BYTES; at + ENTRY_BYTES <= meta.length; at += ENTRY_BYTES)
    if (meta.readUInt8(at + 4) !== 6) sum += meta.readUInt32BE(at + 8);
  if (meta.length >= BATCH_HEAD_BYTES) meta.writeUInt32BE(sum >>> 0, 4);
}

export function mutatedBatch(draw: Draw): BatchExample {
  const { meta, payload } = draw.pick(BATCHES);
  const other = draw.oneIn(10) ? draw.pick(BATCHES) : undefined;
  const metas = draw.oneIn(3) ? meta : mutateBytes(meta, draw, BATCH_FIELDS, other && [other.meta]);
  if (metas !== meta && draw.oneIn(2)) addUp(metas);
  const left = draw.oneIn(3) ? payload : mutateBytes(payload, draw, PAYLOAD_FIELDS, other && [other.payload]);
  return { meta: metas, payload: left };
}

function extentOf(kind: 'data' | 'hole', offset: number): BatchExample {
  const payload = HELD[0] ?? Buffer.alloc(0);
  const meta = Buffer.alloc(EXTENT_META_BYTES);
  const digest = kind === 'hole' ? Buffer.alloc(32) : sha256(payload);
  writeExtentMeta(meta, { kind, offset, length: payload.length, digest });
  return { meta, payload: kind === 'hole' ? Buffer.alloc(0) : payload };
}

export const HONEST_EXTENT = extentOf('data', 0);

export function mutatedExtent(draw: Draw): BatchExample {
  const { meta, payload } = extentOf(draw.oneIn(4) ? 'hole' : 'data', draw.oneIn(2) ? 0 : 65_536);
  return {
    meta: draw.oneIn(6) ? meta : mutateBytes(meta, draw, EXTENT_FIELDS),
    payload: draw.oneIn(3) ? mutateBytes(payload, draw) : payload,
  };
}

/** The decoder alone; nothing is written. */
export function decoderTarget(): Target {
  const decoder = new BatchDecoder();
  return {
    name: 'decode',
    share: 100,
    play: (draw, _index, told) => {
      const batch = mutatedBatch(draw);
      told(batch);
      return outcomeOf(() =>
        decoder.decode(
          readBatchHead(batch.meta),
          batch.payload,
          HELD_IMAGE,
          ({ block, bytes }) => {
            if (block * 65_536 >= IMAGE_BYTES || (bytes && bytes.length > 65_536))
              throw new Finding(`block ${block} is none`);
          },
          () => undefined,
        ),
      );
    },
  };
}

/** The worker threads, which write what they have verified. */
export function workersTarget(): Target {
  const pool = new CodecPool(2);
  const path = join(tmpdir(), `dwcp-fuzz-${process.pid}.img`);
  const fd = openSync(path, 'w+');
  const memory = new SharedArrayBuffer(16 * MIB);
  const into = Buffer.from(memory);
  const held = new Manifest(IMAGE_BYTES);
  const dictionaries = [HELD_IMAGE.dictionaryOf(0x01020304)].flatMap((each) => (each ? [shareDictionary(each)] : []));
  /** Each input finds the same file. */
  const begin = (): void => {
    for (const [block, bytes] of HELD.entries()) {
      if (held.hashOf(block).equals(HELD_IMAGE.hashOf(block))) continue;
      writeSync(fd, bytes, 0, bytes.length, block * 65_536);
      held.set(block, HELD_IMAGE.hashOf(block));
    }
  };
  return {
    name: 'workers',
    share: 10,
    play: async (draw, _index, told): Promise<Outcome> => {
      begin();
      const extent = draw.oneIn(5);
      const input = extent ? mutatedExtent(draw) : mutatedBatch(draw);
      told({ extent, ...input });
      input.meta.copy(into);
      input.payload.copy(into, input.meta.length);
      const file = { fd, sizeBytes: IMAGE_BYTES };
      const frame = { memory, offset: 0, metaBytes: input.meta.length, payloadBytes: input.payload.length };
      try {
        if (extent) {
          // What it writes is no block that the manifest knows.
          for (let block = 0; block < HELD.length; block += 1) held.set(block, Buffer.alloc(16, 0xff));
          await pool.run({ kind: 'writeExtent', file, frame });
        } else
          await pool.run({
            kind: 'decode',
            file,
            held: held.memory,
            references: [{ ...file, from: 0 }],
            dictionaries,
            frame,
          });
        return 'accepted';
      } catch (error) {
        return refusal(error);
      }
    },
    close: async () => {
      await pool.close();
      closeSync(fd);
      rmSync(path, { force: true });
    },
  };
}
