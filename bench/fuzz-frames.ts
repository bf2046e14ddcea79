/**
 * Streams of frames for the frame reader: every kind as it is really built, made wrong with its checksum put right behind it or not, in
 * chunks of any size, with memory that is late; and what comes out goes to whoever reads that kind of frame.
 */
import { MAX_GATHERED_BYTES, readBatchHead } from '../src/encoder/batch-format';
import { MIB } from '../src/model/units';
import { readExtentMeta } from '../src/sync/codec/extent-format';
import { BatchAssembly, partsOf } from '../src/transport/batch-parts';
import { readCounters, writeCounters } from '../src/transport/counters';
import { buildFrame, FRAME, type Frame, type FrameType, HEADER_BYTES } from '../src/transport/frame';
import { FrameReader } from '../src/transport/frame-reader';
import { helloSchema, readAnswer, readMeta } from '../src/transport/hello';
import { Slab } from '../src/transport/slab';
import { BATCHES, IMAGE_BYTES } from './fuzz-batches';
import { chunksOf, type Field, mutateBytes } from './fuzz-bytes';
import type { Draw } from './fuzz-draw';
import { ERROR_REPORT, HELLO, WELCOME } from './fuzz-hello';
import { mutateJson } from './fuzz-json';
import { REQUESTS } from './fuzz-requests';
import { sealed } from './fuzz-sealed';
import { Finding, outcomeOf, type Target } from './fuzz-target';

const HEADER_FIELDS: readonly Field[] = [
  { at: 0, size: 2 },
  { at: 2, size: 1 },
  { at: 3, size: 1 },
  { at: 4, size: 4 },
  { at: 8, size: 4 },
  { at: 12, size: 4 },
  { at: 16, size: 8 },
  { at: 24, size: 8 },
];
const TYPES = Object.keys(FRAME) as FrameType[];
const ALL: ReadonlySet<FrameType> = new Set(TYPES);
const NAMES = { migrationId: 'm', vmId: 'vm', sourceHost: 'a' };
/** The bound of the largest frame, and a little. */
const MOST_FRAME_BYTES = MAX_GATHERED_BYTES + 128 * 1024;

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

export const COUNTERS = writeCounters({
  verified: [1, 2, 3],
  refused: [{ batch: 4, block: 5 }],
  streams: [{ stream: 0, blocked: false, receivedBytes: 4096 }],
});

const BATCH_FRAMES = BATCHES.map(({ meta, payload }, id) => buildFrame('batch', id + 1, meta, payload));

/** What most frames are made of: large ones cost time and show little more. */
const SMALL_BYTES = 24 * 1024;

const EXAMPLES: Readonly<Record<FrameType, readonly Buffer[]>> = {
  hello: [buildFrame('hello', 0, json(HELLO))],
  welcome: [buildFrame('welcome', 0, json(WELCOME))],
  refused: [buildFrame('refused', 0, json(ERROR_REPORT))],
  request: Object.entries(REQUESTS).map(([method, { body, payload }], id) =>
    buildFrame('request', id + 1, json({ ...body(NAMES), method }), payload),
  ),
  response: Object.values(REQUESTS).flatMap(({ answers, answerPayload }, id) =>
    answers.map((answer) => buildFrame('response', id + 1, json({ ...answer, ok: true }), answerPayload)),
  ),
  event: [
    buildFrame('event', 0, json({ event: 'counters' }), COUNTERS),
    buildFrame('event', 0, json({ event: 'failed', error: ERROR_REPORT })),
    buildFrame('event', 0, json({ event: 'written', offset: 65_536 })),
  ],
  batch: BATCH_FRAMES,
  ping: [buildFrame('ping', 123_456)],
  pong: [buildFrame('pong', 123_456)],
  detach: [buildFrame('detach', 0)],
  probe: [buildFrame('probe', 0, undefined, Buffer.alloc(1400))],
  extent: [buildFrame('extent', 0, Buffer.alloc(52, 1), Buffer.alloc(4096))],
  tunnel: [buildFrame('tunnel', 0, undefined, Buffer.alloc(1000, 2))],
  part: BATCH_FRAMES.filter(({ length }) => length < 512 * 1024).flatMap((frame, id) => partsOf(id + 1, frame)),
};

const SPLICED = ['hello', 'request', 'response', 'event', 'ping', 'detach', 'extent'] as const;
const JSON_TYPES: ReadonlySet<FrameType> = new Set(['hello', 'welcome', 'refused', 'request', 'response', 'event']);

/** A valid frame, or one that is not. */
export function mutatedFrame(draw: Draw, type: FrameType): Buffer {
  const small = draw.oneIn(60) ? [] : EXAMPLES[type].filter(({ length }) => length < SMALL_BYTES);
  const valid = draw.pick(small.length > 0 ? small : EXAMPLES[type]);
  if (draw.oneIn(6)) return valid;
  if (draw.oneIn(3)) return mutateBytes(valid, draw, HEADER_FIELDS, EXAMPLES[draw.pick(SPLICED)]);
  const payloadAt = HEADER_BYTES + valid.readUInt32BE(4);
  const [meta, payload] = [valid.subarray(HEADER_BYTES, payloadAt), valid.subarray(payloadAt)];
  const asJson = JSON_TYPES.has(type) && !draw.oneIn(4);
  const metas = asJson ? mutateJson(JSON.parse(meta.toString()), draw) : draw.oneIn(2) ? mutateBytes(meta, draw) : meta;
  const as = draw.oneIn(12) ? draw.pick(TYPES) : type;
  return sealed(
    as,
    draw.oneIn(3) ? draw.below(2 ** 31) : 1,
    metas,
    draw.oneIn(3) ? mutateBytes(payload, draw) : payload,
  );
}

/** Reads a frame as whoever it is for. */
function read(frame: Frame, parts: BatchAssembly, slab: Slab): void {
  switch (frame.type) {
    case 'hello':
      readMeta(helloSchema, frame);
      return;
    case 'welcome':
    case 'refused':
      readAnswer(frame);
      return;
    case 'batch':
      readBatchHead(frame.meta);
      return;
    case 'extent':
      readExtentMeta(frame.meta, frame.payloadBytes, IMAGE_BYTES);
      return;
    case 'event':
      readCounters(frame.payload);
      return;
    case 'part': {
      const batch = parts.add(frame);
      if (batch) slab.free(batch.run);
      return;
    }
    default:
  }
}

export function framesTarget(): Target {
  const scratch = Buffer.alloc(MOST_FRAME_BYTES);
  const slab = new Slab(4 * MIB);
  return {
    name: 'frames',
    share: 420,
    play: (draw, _index, told) => {
      const first = draw.pick(TYPES);
      const frames = Array.from({ length: 1 + draw.below(4) }, () =>
        mutatedFrame(draw, draw.oneIn(2) ? first : draw.pick(TYPES)),
      );
      const stream = Buffer.concat(frames);
      told(stream);
      const parts = new BatchAssembly(slab);
      let late = draw.oneIn(10) ? 1 + draw.below(3) : 0;
      const reader = new FrameReader(draw.oneIn(4) ? new Set([first]) : ALL, {
        allocate: ({ metaBytes, payloadBytes }) => {
          const bytes = HEADER_BYTES + metaBytes + payloadBytes;
          if (bytes > scratch.length) throw new Finding(`memory of ${bytes} bytes is asked for a frame`);
          late -= 1;
          return late >= 0 ? undefined : scratch.subarray(0, bytes);
        },
        deliver: (frame) => read(frame, parts, slab),
      });
      const outcome = outcomeOf(() => {
        for (const chunk of chunksOf(stream, draw)) {
          let free = reader.push(chunk);
          for (let waits = 0; !free; waits += 1) {
            if (waits > 5) throw new Finding('the reader stays blocked where there is memory');
            free = reader.resume();
          }
        }
      }, true);
      parts.close();
      if (slab.freeBytes !== slab.sizeBytes) throw new Finding('memory of parts has not been given back');
      return outcome;
    },
  };
}
