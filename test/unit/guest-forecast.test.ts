/**
 * The forecast of a guest's move: what each of its parts weighs, that a guest which outruns its link is said to, and that what was seen
 * of its writing grows as it should.
 */
import { type DirtySeen, dirtyGrowth } from '../../src/model/dirty-growth';
import { courseOf, forecastGuest, type GuestLoad, type ImageLoad } from '../../src/model/guest-forecast';
import { downtimeFactor, type MoveRow, memoryShareBefore, slownessOf } from '../../src/model/move-row';
import { MIB } from '../../src/model/units';

const MEMORY: ImageLoad = {
  imageId: 'memory',
  kind: 'memory',
  sizeBytes: 512 * MIB,
  ways: [
    { level: -5, linkBytes: 140e6, encodeSeconds: 2 },
    { level: 3, linkBytes: 100e6, encodeSeconds: 4 },
  ],
  uncertain: 0.05,
};
const LOAD: GuestLoad = {
  images: [MEMORY],
  dirty: () => 0,
  dirtyLinkShare: 0.5,
  rateBytesPerSecond: 12.5e6,
  rttMs: 50,
  setUpSeconds: 2,
  downtimeFactor: 1,
  slowness: 1,
  options: { maxDowntimeMs: 30_000, memoryIterations: 5, dirtyPageThreshold: 1000, mayThrottle: true },
};

describe('the course of a move', () => {
  it('of a guest that writes nothing: what crosses at the level that takes least, and a pause of its own length', () => {
    const course = courseOf(LOAD);
    expect(course).toMatchObject({ converges: true, rounds: 1, linkBytes: 100e6, downtimeMs: 300 });
    expect(course.seconds).toBeCloseTo(1 + 0.5 + 0.5 + 8 + 0.3, 5);
  });

  it('where the processors are busy, takes the level that they keep up with', () => {
    const busy = { ...MEMORY, ways: MEMORY.ways.map((way) => ({ ...way, encodeSeconds: 4 * way.encodeSeconds })) };
    const course = courseOf({ ...LOAD, images: [busy] });
    expect(course.linkBytes).toBe(140e6);
    expect(course.seconds - courseOf(LOAD).seconds).toBeCloseTo(140e6 / 12.5e6 - 8, 5);
  });

  it('takes disks one behind the other, and what is too much for the link longer', () => {
    const disk: ImageLoad = {
      ...MEMORY,
      imageId: 'vda',
      kind: 'disk',
      ways: [{ level: 3, linkBytes: 50e6, encodeSeconds: 0 }],
    };
    expect(courseOf({ ...LOAD, images: [disk, MEMORY] }).seconds - courseOf(LOAD).seconds).toBeCloseTo(4, 5);
  });

  it('goes on in rounds while the link gains on the guest, and pauses for what the last one leaves', () => {
    const course = courseOf({ ...LOAD, dirty: (seconds) => 5e6 * seconds });
    expect(course.rounds).toBeGreaterThan(1);
    expect(course.converges).toBe(true);
    expect(course.downtimeMs).toBeGreaterThan(300);
    expect(course.linkBytes).toBeGreaterThan(100e6);
  });

  it('says so where the guest outruns the link and may not be slowed down', () => {
    const dirty = (seconds: number): number => Math.min(512 * MIB, 60e6 * seconds);
    const options = { ...LOAD.options, mayThrottle: false, maxDowntimeMs: 1000 };
    expect(courseOf({ ...LOAD, dirty, options }).converges).toBe(false);
    expect(courseOf({ ...LOAD, dirty, options: { ...options, mayThrottle: true } }).converges).toBe(true);
  });

  it('ranges to both sides of what is said, and further where less was looked at', () => {
    const forecast = (uncertain: number) =>
      forecastGuest({ ...LOAD, images: [{ ...MEMORY, uncertain }] }, { processors: 2, basis: [] });
    const sure = forecast(0.02);
    expect(sure.secondsLow).toBeLessThan(sure.seconds);
    expect(sure.secondsHigh).toBeGreaterThan(sure.seconds);
    expect(sure.downtimeMsLow).toBeLessThan(sure.downtimeMs);
    expect(forecast(0.3).secondsHigh).toBeGreaterThan(sure.secondsHigh);
  });
});

describe('what a guest changes', () => {
  const grown = (...seen: DirtySeen[]) => dirtyGrowth(seen, 512 * MIB);

  it('is nothing where nothing was seen', () => {
    expect(grown()(10)).toBe(0);
    expect(grown({ seconds: 1, bytes: 0 }, { seconds: 5, bytes: 0 })(60)).toBe(0);
  });

  it('grows steadily after one look, up to all of its memory', () => {
    expect(grown({ seconds: 2, bytes: 4e6 })(10)).toBe(20e6);
    expect(grown({ seconds: 2, bytes: 4e6 })(1e9)).toBe(512 * MIB);
  });

  it('fills a set where the second look found little more', () => {
    const set = 8e6;
    const of = (seconds: number): DirtySeen => ({ seconds, bytes: set * (1 - Math.exp(-seconds / 3)) });
    const growth = grown(of(1), of(5));
    expect(growth(1)).toBeCloseTo(of(1).bytes, -2);
    expect(growth(60)).toBeCloseTo(set, -2);
  });

  it('does not shrink where the second look found less', () => {
    const growth = grown({ seconds: 1, bytes: 4e6 }, { seconds: 5, bytes: 3e6 });
    expect(growth(60)).toBe(3e6);
    expect(growth(0.5)).toBe(1.5e6);
  });
});

describe('earlier moves', () => {
  const row: MoveRow = {
    vmId: 'web',
    destinationHost: 'b',
    atMs: 0,
    rttMs: 50,
    expectedDowntimeMs: 300,
    downtimeMs: 450,
    seconds: 10,
    leastSeconds: 4,
    memory: { began: 'empty', totalBytes: 100, linkBytes: 30 },
  };

  it('say how pauses compare with what was expected: the middle one counts', () => {
    expect(downtimeFactor([])).toBe(1);
    expect(downtimeFactor([row, { ...row, downtimeMs: 9000 }, row])).toBe(1.5);
  });

  it('say how much longer all takes than its slowest part; those that were over at once say nothing', () => {
    expect(slownessOf([row])).toBe(2.5);
    expect(slownessOf([{ ...row, leastSeconds: 0.1 }])).toBe(slownessOf([]));
    const course = (slowness: number) => courseOf({ ...LOAD, slowness });
    expect(course(1.5).seconds - course(1).seconds).toBeCloseTo(4, 5);
    // What is short of processors packs less.
    expect(course(3).linkBytes).toBe(140e6);
  });

  it('say what crossed of memory, of a move that began alike', () => {
    expect(memoryShareBefore([row], 'web', 'empty')).toBe(0.3);
    expect(memoryShareBefore([row], 'web', 'baseline')).toBeUndefined();
  });
});
