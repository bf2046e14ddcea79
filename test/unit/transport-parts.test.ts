/** The small parts of the transport: slab, token bucket, counters, tuner. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { BatchAssembly, MOST_IN_PARTS_BYTES, PART_BYTES, partsOf } from '../../src/transport/batch-parts';
import { type Counters, readCounters, writeCounters } from '../../src/transport/counters';
import { buildFrame, type Frame, openFrame, readHeader } from '../../src/transport/frame';
import { type Run, Slab } from '../../src/transport/slab';
import { TokenBucket } from '../../src/transport/token-bucket';

const MIB = 1024 * 1024;

describe('slab', () => {
  it('never gives the same memory twice, and has all of it back in the end', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 600_000 }), trimTo: fc.nat(100), free: fc.boolean() }), {
          maxLength: 200,
        }),
        (steps) => {
          const slab = new Slab(2 * MIB);
          const open: Run[] = [];
          for (const { bytes, trimTo, free } of steps) {
            const run = slab.take(bytes);
            if (run) {
              slab.trim(run, Math.ceil((bytes * trimTo) / 100));
              open.push(run);
            }
            if (free) {
              const oldest = open.shift();
              if (oldest) slab.free(oldest);
            }
            const sorted = [...open].sort((a, b) => a.offset - b.offset);
            for (let index = 1; index < sorted.length; index += 1)
              expect(sorted[index]!.offset).toBeGreaterThanOrEqual(
                sorted[index - 1]!.offset + sorted[index - 1]!.units * 16_384,
              );
          }
          for (const run of open) {
            slab.free(run);
            slab.free(run);
          }
          expect(slab.freeBytes).toBe(slab.sizeBytes);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('serves those who wait in their order, as memory comes back', () => {
    const slab = new Slab(64 * 1024);
    const first = slab.take(64 * 1024)!;
    const served: string[] = [];
    for (const name of ['a', 'b']) slab.whenFreed(() => served.push(name));
    const gone = slab.whenFreed(() => served.push('gone'));
    gone();
    slab.free(first);
    expect(served).toEqual(['a', 'b']);
  });
});

describe('token bucket', () => {
  it('lets everything pass at once without a limit', () => {
    expect(new TokenBucket(0).take(1e9)).toBeUndefined();
  });

  it('paces to its rate over a second, in line', async () => {
    const bucket = new TokenBucket(4e6);
    const startedAt = performance.now();
    for (let sent = 0; sent < 2e6; sent += 32_768) await bucket.take(32_768);
    const bytesPerSecond = 2e6 / ((performance.now() - startedAt) / 1000);
    expect(bytesPerSecond).toBeLessThan(4e6 * 1.15);
    expect(bytesPerSecond).toBeGreaterThan(1e6);
    expect(bucket.throttledMs).toBeGreaterThan(200);
  });

  it('frees everybody when the limit is taken off', async () => {
    const bucket = new TokenBucket(1000);
    await bucket.take(100_000);
    const waiting = Promise.all([bucket.take(100_000), bucket.take(100_000)]);
    bucket.setRate(0);
    await waiting;
  });
});

describe('counters', () => {
  const u32 = fc.nat(0xffffffff);
  const report = fc.record({
    verified: fc.array(u32, { maxLength: 100 }),
    refused: fc.array(fc.record({ batch: u32, block: u32 }), { maxLength: 50 }),
    streams: fc.array(fc.record({ stream: fc.nat(65_535), blocked: fc.boolean(), receivedBytes: fc.nat(2 ** 45) }), {
      maxLength: 50,
    }),
  });
  const outcomeOf = (bytes: Buffer): Counters | 'refused' => {
    try {
      return readCounters(bytes);
    } catch (error) {
      expect(error).toMatchObject({ code: 'PROTOCOL_VIOLATION' });
      return 'refused';
    }
  };

  it('are read as they were written', () => {
    fc.assert(
      fc.property(report, (counters) => {
        expect(readCounters(writeCounters(counters))).toEqual(counters);
      }),
    );
  });

  it('are refused by code when they are cut, at whatever byte, or name more than there is', () => {
    fc.assert(
      fc.property(report, fc.nat(), (counters, cut) => {
        const bytes = writeCounters(counters);
        expect(outcomeOf(bytes.subarray(0, cut % bytes.length))).toBe('refused');
        const refusedAt = 4 + 4 * counters.verified.length;
        for (const at of [0, refusedAt]) {
          const lying = Buffer.from(bytes);
          lying.writeUInt32BE(0xffffffff, at);
          expect(outcomeOf(lying)).toBe('refused');
        }
        bytes.writeUInt16BE(0xffff, refusedAt + 4 + 8 * counters.refused.length);
        expect(outcomeOf(bytes)).toBe('refused');
      }),
    );
  });

  it('of any other bytes are refused by code, or are no more than these have room for', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const read = outcomeOf(Buffer.from(bytes));
        if (read === 'refused') return;
        const { verified, refused, streams } = read;
        expect(10 + 4 * verified.length + 8 * refused.length + 11 * streams.length).toBeLessThanOrEqual(bytes.length);
      }),
    );
  });
});

describe('a batch in parts', () => {
  const PART: ReadonlySet<'part'> = new Set(['part']);
  const batchFrame = (id: number, payloadBytes: number): Buffer =>
    buildFrame('batch', id, Buffer.alloc(48, 7), randomBytes(payloadBytes));
  const opened = (part: Buffer): Frame => openFrame(readHeader(part, PART), Buffer.from(part));

  it('is the same batch again, in whatever order its parts and those of others come', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 8 * PART_BYTES }), { minLength: 1, maxLength: 5 }),
        fc.infiniteStream(fc.nat(1000)),
        (sizes, keys) => {
          const slab = new Slab(4 * MIB);
          const assembly = new BatchAssembly(slab);
          const batches = sizes.map((bytes, id) => batchFrame(id, bytes));
          const parts = batches
            .flatMap((frame, id) => partsOf(id, frame))
            .map((part) => ({ part, key: keys.next().value as number }))
            .sort((a, b) => a.key - b.key);
          const whole = new Map<number, Buffer>();
          for (const { part } of parts) {
            const done = assembly.add(opened(part));
            if (!done) continue;
            whole.set(done.frame.sequence, Buffer.concat([done.frame.meta, done.frame.payload]));
            slab.free(done.run);
          }
          for (const [id, frame] of batches.entries()) expect(whole.get(id)?.equals(frame.subarray(32))).toBe(true);
          expect(slab.freeBytes).toBe(slab.sizeBytes);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('fits an initial window, part by part', () => {
    for (const part of partsOf(1, batchFrame(1, 100_000))) expect(part.length).toBeLessThanOrEqual(10 * 1448);
  });

  it('is given up, oldest first, where too many stay without a part, and its memory comes back', () => {
    const slab = new Slab(32 * MIB);
    const assembly = new BatchAssembly(slab);
    const first = partsOf(0, batchFrame(0, 2 * PART_BYTES));
    for (const [id] of Array.from({ length: 400 }).entries()) {
      const [part] = id === 0 ? first : partsOf(id, batchFrame(id, 2 * PART_BYTES));
      expect(assembly.add(opened(part!))).toBeUndefined();
    }
    for (const part of first.slice(1)) expect(assembly.add(opened(part))).toBeUndefined();
    assembly.close();
    expect(slab.freeBytes).toBe(slab.sizeBytes);
  });

  it('waits to be sent again where there is no memory for it', () => {
    const slab = new Slab(MIB);
    const all = slab.take(MIB)!;
    const assembly = new BatchAssembly(slab);
    const parts = partsOf(3, batchFrame(3, 2 * PART_BYTES));
    for (const part of parts) expect(assembly.add(opened(part))).toBeUndefined();
    slab.free(all);
    expect(parts.map((part) => assembly.add(opened(part))).at(-1)?.frame.sequence).toBe(3);
  });

  it.each<[string, (meta: Buffer) => void]>([
    ['a number beyond the last', (meta) => meta.writeUInt16BE(9, 0)],
    ['another count than its length asks for', (meta) => meta.writeUInt16BE(9, 2)],
    ['a length over the bound', (meta) => meta.writeUInt32BE(MOST_IN_PARTS_BYTES + 1, 4)],
    ['a length of another batch', (meta) => meta.writeUInt32BE(3 * PART_BYTES - 1, 4)],
  ])('is refused with %s', (_, damage) => {
    const assembly = new BatchAssembly(new Slab(MIB));
    const [first, second] = partsOf(5, batchFrame(5, 2 * PART_BYTES)).map(opened);
    assembly.add(first!);
    const meta = Buffer.from(second!.meta);
    damage(meta);
    expect(() => assembly.add({ ...second!, meta })).toThrow('A part of a batch');
  });

  it('that do not become whole in time give their memory back', () => {
    const slab = new Slab(1024 * 1024);
    const assembly = new BatchAssembly(slab);
    const now = jest.spyOn(performance, 'now');
    now.mockReturnValue(1_000);
    assembly.add(opened(partsOf(5, batchFrame(5, 2 * PART_BYTES))[0]!));
    now.mockReturnValue(30_000);
    assembly.forgetOld();
    expect(slab.freeBytes).toBeLessThan(slab.sizeBytes);
    now.mockReturnValue(31_001);
    assembly.forgetOld();
    now.mockRestore();
    expect(slab.freeBytes).toBe(slab.sizeBytes);
  });

  it('that make no batch give their memory back', () => {
    const slab = new Slab(MIB);
    const assembly = new BatchAssembly(slab);
    const [first, ...others] = partsOf(5, batchFrame(5, 2 * PART_BYTES)).map(opened);
    const payload = Buffer.from(first!.payload);
    // Its type.
    payload.writeUInt8(99, 3);
    assembly.add({ ...first!, payload });
    const last = others.pop()!;
    for (const part of others) assembly.add(part);
    expect(() => assembly.add(last)).toThrow('type 99');
    expect(slab.freeBytes).toBe(slab.sizeBytes);
  });
});
