/** Framing: exact inverse for any cut of the stream, and a coded error for every way a header can lie. */
import fc from 'fast-check';
import type { DwcpError } from '../../src/model/errors';
import { buildFrame, FRAME, type Frame, type FrameType, HEADER_BYTES } from '../../src/transport/frame';
import { FrameReader } from '../../src/transport/frame-reader';

const ALL = new Set(Object.keys(FRAME) as FrameType[]);
const WITH_BODY: FrameType[] = ['request', 'response', 'event', 'batch', 'extent'];

function reader(allowed = ALL, memory = Infinity): { frames: Frame[]; reader: FrameReader; taken: () => number } {
  const frames: Frame[] = [];
  let left = memory;
  let taken = 0;
  const read = new FrameReader(allowed, {
    allocate: ({ metaBytes, payloadBytes }) => {
      const bytes = HEADER_BYTES + metaBytes + payloadBytes;
      if (left-- <= 0) return undefined;
      taken += bytes;
      return Buffer.alloc(bytes);
    },
    deliver: (frame) => frames.push(frame),
  });
  return { frames, reader: read, taken: () => taken };
}

const frameArbitrary = fc.record({
  type: fc.constantFrom(...WITH_BODY),
  sequence: fc.nat(2 ** 31),
  meta: fc.uint8Array({ maxLength: 2000 }),
  payload: fc.uint8Array({ maxLength: 5000 }),
});

describe('framing', () => {
  it('gives back the same frames however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(frameArbitrary, { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1 }),
        (given, cuts) => {
          const stream = Buffer.concat(
            given.map(({ type, sequence, meta, payload }) =>
              buildFrame(type, sequence, Buffer.from(meta), Buffer.from(payload)),
            ),
          );
          const { frames, reader: read } = reader();
          for (let at = 0, cut = 0; at < stream.length; cut += 1) {
            const length = cuts[cut % cuts.length]!;
            read.push(stream.subarray(at, at + length));
            at += length;
          }
          expect(
            frames.map(({ type, sequence, meta, payload }) => ({
              type,
              sequence,
              meta: [...meta],
              payload: [...payload],
            })),
          ).toEqual(
            given.map(({ type, sequence, meta, payload }) => ({
              type,
              sequence,
              meta: [...meta],
              payload: [...payload],
            })),
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('gives back the same frames where bytes are put right where they belong, and asks for none that are of the next frame', () => {
    fc.assert(
      fc.property(
        fc.array(frameArbitrary, { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1 }),
        (given, cuts) => {
          const stream = Buffer.concat(
            given.map(({ type, sequence, meta, payload }) =>
              buildFrame(type, sequence, Buffer.from(meta), Buffer.from(payload)),
            ),
          );
          const { frames, reader: read } = reader();
          for (let at = 0, cut = 0; at < stream.length; cut += 1) {
            const before = frames.length;
            const taken = stream.copy(read.space()!, 0, at, Math.min(stream.length, at + cuts[cut % cuts.length]!));
            read.filled(taken);
            at += taken;
            expect(frames.length).toBeLessThanOrEqual(before + 1);
          }
          expect(
            frames.map(({ sequence, meta, payload }) => ({ sequence, meta: [...meta], payload: [...payload] })),
          ).toEqual(given.map(({ sequence, meta, payload }) => ({ sequence, meta: [...meta], payload: [...payload] })));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('delivers frames without a body as soon as their header is there', () => {
    const { frames, reader: read } = reader();
    read.push(Buffer.concat([buildFrame('ping', 1), buildFrame('ping', 2)]));
    expect(frames.map((frame) => frame.sequence)).toEqual([1, 2]);
  });

  it('meets any damage with a coded error or an untouched frame, and asks for no memory beyond the limits', () => {
    fc.assert(
      fc.property(frameArbitrary, fc.nat(), fc.nat(255), fc.boolean(), (given, at, value, cut) => {
        const bytes = buildFrame(given.type, given.sequence, Buffer.from(given.meta), Buffer.from(given.payload));
        const place = at % bytes.length;
        const unchanged = bytes[place] === value;
        bytes[place] = value;
        const { frames, reader: read, taken } = reader();
        try {
          read.push(cut ? bytes.subarray(0, place) : bytes);
          // Payloads of batches and extents are verified by their own hashes, further up.
          const selfVerified = given.type === 'batch' || given.type === 'extent';
          if (frames.length > 0)
            expect(unchanged || (selfVerified && place >= HEADER_BYTES + given.meta.length)).toBe(true);
        } catch (error) {
          expect((error as DwcpError).code).toMatch(/^(PROTOCOL_VIOLATION|PROTOCOL_VERSION|FRAME_CORRUPT)$/);
        }
        expect(taken()).toBeLessThan(8 * 1024 * 1024);
      }),
      { numRuns: 400 },
    );
  });

  it('refuses a lying length before it takes memory', () => {
    const bytes = buildFrame('batch', 1, Buffer.alloc(48), Buffer.alloc(10));
    bytes.writeUInt32BE(0xffffffff, 8);
    const { reader: read, taken } = reader();
    expect(() => read.push(bytes)).toThrow(expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }) as Error);
    expect(taken()).toBe(0);
  });

  it('refuses a type that is not expected here, an unknown one, and another version', () => {
    const push = (bytes: Buffer, allowed = ALL): void => void reader(allowed).reader.push(bytes);
    expect(() => push(buildFrame('request', 1), new Set<FrameType>(['batch']))).toThrow(
      expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }) as Error,
    );
    const unknown = buildFrame('ping', 1);
    unknown.writeUInt8(0, 3);
    expect(() => push(unknown)).toThrow(expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }) as Error);
    const newer = buildFrame('ping', 1);
    newer.writeUInt8(2, 2);
    expect(() => push(newer)).toThrow(expect.objectContaining({ code: 'PROTOCOL_VERSION' }) as Error);
  });

  it('stops while no memory is free and goes on at the very byte where it stopped', () => {
    let free = false;
    const frames: Frame[] = [];
    const read = new FrameReader(ALL, {
      allocate: (header) => (free ? Buffer.alloc(HEADER_BYTES + header.metaBytes + header.payloadBytes) : undefined),
      deliver: (frame) => frames.push(frame),
    });
    const bytes = Buffer.concat([
      buildFrame('batch', 1, Buffer.alloc(48, 1), Buffer.alloc(100, 2)),
      buildFrame('batch', 2, Buffer.alloc(48, 3), Buffer.alloc(50, 4)),
    ]);
    expect(read.push(bytes)).toBe(false);
    expect(read.resume()).toBe(false);
    free = true;
    expect(read.resume()).toBe(true);
    expect(frames.map((frame) => [frame.sequence, frame.payload.length])).toEqual([
      [1, 100],
      [2, 50],
    ]);
  });
});
