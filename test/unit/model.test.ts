/** The tables and pure rules that everything else is made from. */
import fc from 'fast-check';
import { limitAt, parseBandwidthSchedule } from '../../src/model/bandwidth-schedule';
import { ERROR_CODES } from '../../src/model/error-codes';
import { DwcpError, fromReport, toDwcpError } from '../../src/model/errors';
import { EXIT } from '../../src/model/exit-codes';
import { vmIdSchema } from '../../src/model/ids';
import { migrationRequestSchema } from '../../src/model/migration';
import { OWN_WORKFLOWS, temporalPriorityKey, WORKFLOWS } from '../../src/model/names';
import { parseOption } from '../../src/model/option-text';
import { compileMigrationOptions, MIGRATION_OPTIONS, PROCESS_OPTIONS } from '../../src/model/options';
import { planMigration } from '../../src/model/plan';
import { classifyTier, selectLevelAndStreams } from '../../src/model/tiers';
import { parseDurationMs, parseRateBytesPerSecond, parseSizeBytes } from '../../src/model/units';

describe('error codes', () => {
  it('each say what happened and what mends it, in words of their own', () => {
    const specs = Object.values(ERROR_CODES);
    expect(new Set(specs.map((spec) => spec.meaning)).size).toBe(specs.length);
    for (const spec of specs) expect(spec.mend.length).toBeGreaterThan(5);
  });

  it('end the command with a documented exit code, never with success', () => {
    for (const spec of Object.values(ERROR_CODES)) {
      expect(Object.values(EXIT)).toContain(spec.exitCode);
      expect(spec.exitCode).not.toBe(0);
    }
  });

  it('fall back only where transport or encoder failed for good', () => {
    const falling = Object.entries(ERROR_CODES).filter(([, spec]) => spec.fallback);
    expect(falling.map(([code]) => code).sort()).toEqual([
      'ENCODER_FAILED',
      'HELLO_REFUSED',
      'PROTOCOL_VERSION',
      'PROTOCOL_VIOLATION',
      'STREAM_NOT_UNDERSTOOD',
    ]);
    for (const [, spec] of falling) expect(spec.retry).toBe('permanent');
  });

  it('survive the way over a border, and a full disk is found by its errno', () => {
    const error = new DwcpError('DISK_FULL', 'no room', { side: 'destination', hint: 'free some' });
    expect(fromReport(error.report()).report()).toEqual(error.report());
    expect(fromReport({ code: 'FROM_THE_FUTURE', message: 'x' }).code).toBe('INTERNAL');
    expect(toDwcpError(Object.assign(new Error('write'), { code: 'ENOSPC' }), 'INTERNAL').code).toBe('DISK_FULL');
  });
});

describe('quantities', () => {
  it.each([
    ['64MiB', 67_108_864],
    ['1.5 GB', 1.5e9],
    ['4096', 4096],
    ['1k', 1000],
    ['', undefined],
    ['x', undefined],
    ['-1', undefined],
    ['1 parsec', undefined],
  ])('size %s', (text, bytes) => {
    expect(parseSizeBytes(text)).toBe(bytes);
  });

  it.each([
    ['100MB/s', 1e8],
    ['800mbit', 1e8],
    ['20 GB/min', 2e10 / 60],
    ['0', 0],
    ['1gbit/s', 1.25e8],
    ['5/x', undefined],
    ['fast', undefined],
    ['1/1/1', undefined],
  ])('rate %s', (text, rate) => {
    expect(parseRateBytesPerSecond(text)).toBe(rate);
  });

  it.each([
    ['30s', 30_000],
    ['250ms', 250],
    ['2h', 7.2e6],
    ['100', 100],
    ['soon', undefined],
  ])('duration %s', (text, ms) => {
    expect(parseDurationMs(text)).toBe(ms);
  });
});

describe('options', () => {
  it('have the defaults that the design gives', () => {
    expect(compileMigrationOptions({})).toMatchObject({
      enableDwcp: true,
      enableFallback: true,
      minStreams: 4,
      maxStreams: 256,
      initialStreams: 16,
      enableDelta: true,
      deltaThreshold: 0.7,
      enableDictionary: true,
      targetSpeedup: 2.5,
      maxDowntimeMs: 30_000,
      bandwidthLimit: 100e6,
      enableCompression: true,
      enableDeltaSync: true,
      memoryIterations: 5,
      dirtyPageThreshold: 1000,
      priority: 5,
      force: false,
    });
    expect(compileMigrationOptions({}).targetTransferRate).toBeCloseTo(20e9 / 60);
    expect(PROCESS_OPTIONS.port.default).toBe(9876);
  });

  it('refuse what is out of range, broken or contradictory, and say what they take', () => {
    expect(() => parseOption('minStreams', MIGRATION_OPTIONS.minStreams, '0')).toThrow(
      'minStreams takes an integer from 1 to 256, not 0',
    );
    expect(() => parseOption('minStreams', MIGRATION_OPTIONS.minStreams, '1.5')).toThrow(
      'minStreams takes an integer from 1 to 256, not 1.5',
    );
    expect(() => parseOption('force', MIGRATION_OPTIONS.force, 'maybe')).toThrow('true or false');
    expect(() => compileMigrationOptions({ minStreams: 9, maxStreams: 8 })).toThrow(
      'minStreams (9) is more than maxStreams (8)',
    );
  });

  it('have a sentence of help each', () => {
    for (const spec of [...Object.values(MIGRATION_OPTIONS), ...Object.values(PROCESS_OPTIONS)])
      expect(spec.help.length).toBeGreaterThan(8);
  });
});

describe('requests', () => {
  it.each([
    [{}, 'vmId'],
    [{ vmId: 'a', sourceHost: 'a', destinationHost: '../b' }, 'destinationHost'],
    [{ vmId: 'x'.repeat(200), sourceHost: 'a', destinationHost: 'b' }, 'vmId'],
    [{ vmId: 'a', sourceHost: 'a', destinationHost: 'b', extra: 1 }, ''],
    [{ vmId: 'a', sourceHost: 'a', destinationHost: 'b', options: { minStreams: 0 } }, 'options.minStreams'],
    [{ vmId: 'a', sourceHost: 'a', destinationHost: 'b', options: { speed: 11 } }, 'options'],
  ])('%j are refused at %s', (request, path) => {
    const parsed = migrationRequestSchema.safeParse(request);
    expect(parsed.success).toBe(false);
    expect(parsed.error?.issues.some((issue) => issue.path.join('.') === path)).toBe(true);
  });

  it('stay small, however many options they carry', () => {
    const options = compileMigrationOptions({});
    expect(
      JSON.stringify({ schemaVersion: 1, vmId: 'v', sourceHost: 'a', destinationHost: 'b', options }).length,
    ).toBeLessThan(16_384);
  });

  it('take no name that could leave its folder', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        if (vmIdSchema.safeParse(text).success) expect(text).not.toMatch(/[/\\\0]|^\.|\s/);
      }),
    );
  });
});

describe('tiers', () => {
  it.each([
    [0.2, 'local'],
    [9.9, 'local'],
    [10, 'regional'],
    [50, 'regional'],
    [50.1, 'global'],
    [300, 'global'],
  ])('%d ms is %s', (rttMs, name) => {
    expect(classifyTier(rttMs).name).toBe(name);
  });

  it('start within the tier and within what the request allows', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 400, noNaN: true }),
        fc.integer({ min: 1, max: 256 }),
        fc.integer({ min: 1, max: 256 }),
        fc.integer({ min: 1, max: 256 }),
        (rttMs, a, b, initialStreams) => {
          const [minStreams, maxStreams] = [Math.min(a, b), Math.max(a, b)];
          const start = selectLevelAndStreams(
            { rttMs, bandwidthBytesPerSecond: 1e7 },
            { minStreams, maxStreams, initialStreams },
            true,
          );
          expect(start.initialStreams).toBeGreaterThanOrEqual(start.minStreams);
          expect(start.initialStreams).toBeLessThanOrEqual(start.maxStreams);
          expect(start.maxStreams).toBeLessThanOrEqual(maxStreams);
          expect(start.minStreams).toBeGreaterThanOrEqual(minStreams);
        },
      ),
    );
  });

  it('begin with what is expected of the path, where something is', () => {
    const bounds = { minStreams: 4, maxStreams: 256, initialStreams: 16 };
    const link = { rttMs: 80, bandwidthBytesPerSecond: 1e7 };
    expect(selectLevelAndStreams(link, bounds, true).initialStreams).toBe(64);
    expect(selectLevelAndStreams({ ...link, expectedStreams: 7 }, bounds, true).initialStreams).toBe(7);
    expect(
      selectLevelAndStreams({ ...link, expectedStreams: 200 }, { ...bounds, maxStreams: 32 }, true).initialStreams,
    ).toBe(32);
  });
});

describe('bandwidth schedule', () => {
  const schedule = parseBandwidthSchedule('08:00-18:00 20MB/s, 22:30-06:00 0');

  it.each([
    [8 * 60, 20e6],
    [18 * 60 - 1, 20e6],
    [18 * 60, 7],
    [22 * 60 + 30, 0],
    [3 * 60, 0],
    [6 * 60, 7],
  ])('at minute %d of the day the limit is %d', (minute, limit) => {
    expect(limitAt(schedule, minute, 7)).toBe(limit);
  });

  it.each(['8-18 20MB/s', '08:00-18:00', '08:00-25:00 1MB/s', '08:00-18:00 fast', '08:00-08:00 1MB/s'])(
    'refuses %j and says what it takes',
    (text) => {
      expect(() => parseBandwidthSchedule(text)).toThrow('08:00-18:00 20MB/s');
    },
  );
});

describe('plan', () => {
  const sample = {
    imageId: 'vda',
    sizeBytes: 1e9,
    began: 'empty' as const,
    sampledBlocks: 100,
    zeroBlocks: 40,
    unchangedBlocks: 0,
    changedBlocks: 60,
    changedBytes: 60 * 65_536,
    packedBytes: 20 * 65_536,
  };

  it('expects the changed share at its packed size, and a lossy single stream to be slow', () => {
    const plan = planMigration(
      [sample],
      { rttMs: 50, bandwidthBytesPerSecond: 12.5e6, lossRatio: 1e-4, congestionControl: 'cubic' },
      0,
    );
    expect(plan.expectedLinkBytes).toBeCloseTo(0.6e9 / 3, -3);
    expect(plan.expectedSeconds).toBeCloseTo(16.6, 0);
    expect(plan.standardSeconds).toBeGreaterThan(600e6 / 12.5e6);
    expect(plan.expectedSpeedup).toBeGreaterThan(3);
  });

  it('expects nothing to be sent where everything is held', () => {
    const plan = planMigration(
      [
        {
          ...sample,
          began: 'baseline',
          zeroBlocks: 0,
          unchangedBlocks: 100,
          changedBlocks: 0,
          changedBytes: 0,
          packedBytes: 0,
        },
      ],
      { rttMs: 1, bandwidthBytesPerSecond: 1e8 },
      0,
    );
    expect(plan.expectedLinkBytes).toBe(0);
    expect(plan.images[0]?.kind).toBe('delta');
  });
});

describe('priority', () => {
  it('is turned round for Temporal: ours is the more urgent the higher', () => {
    expect([1, 2, 3, 5, 6, 9, 10].map(temporalPriorityKey)).toEqual([5, 5, 4, 3, 3, 1, 1]);
  });
});

describe('names', () => {
  it('of workflows are those of the functions that serve them, all of them', () => {
    // One that is missing here, or is none, does not compile.
    const all: Readonly<Record<keyof typeof import('../../workflows'), string>> = { ...WORKFLOWS, ...OWN_WORKFLOWS };
    const served: readonly (keyof typeof import('../../workflows'))[] = Object.values({
      ...WORKFLOWS,
      ...OWN_WORKFLOWS,
    });
    expect(served).toEqual(Object.keys(all));
  });
});
