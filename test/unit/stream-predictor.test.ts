/** What a path is expected to need before anything has been sent on it. */
import type { PathRow } from '../../src/model/path-row';
import { solveRidge } from '../../src/transport/ridge';
import { type PathQuery, predictStreams } from '../../src/transport/stream-predictor';

const QUERY: PathQuery = {
  path: 'b:9876',
  hour: 10,
  rttMs: 50,
  bandwidthBytesPerSecond: 12.5e6,
  congestionControl: 'cubic',
  limitBytesPerSecond: 0,
};

function row(streams: number, given: Partial<PathRow> = {}): PathRow {
  return {
    path: 'b:9876',
    atMs: 1e12,
    hour: 10,
    rttMs: 50,
    congestionControl: 'cubic',
    expectedStreams: 16,
    streams,
    bytesPerSecond: 12e6,
    ...given,
  };
}

describe('expected streams', () => {
  it('are those that transfers on the same path came to, however many there were', () => {
    expect(predictStreams([row(40)], QUERY)?.streams).toBe(40);
    const five = predictStreams([row(30), row(34), row(32), row(36), row(33)], QUERY)?.streams ?? 0;
    expect(five).toBeGreaterThanOrEqual(30);
    expect(five).toBeLessThanOrEqual(36);
  });

  it('follow the rows that are most like now: a path that has got longer, or another hour', () => {
    const rows = [
      ...Array.from({ length: 5 }, () => row(16, { rttMs: 20 })),
      ...Array.from({ length: 5 }, () => row(120, { rttMs: 150 })),
    ];
    expect(predictStreams(rows, { ...QUERY, rttMs: 150 })?.streams).toBeGreaterThan(90);
    expect(predictStreams(rows, { ...QUERY, rttMs: 20 })?.streams).toBeLessThan(25);
    const byHour = [
      ...Array.from({ length: 5 }, () => row(10, { hour: 3 })),
      ...Array.from({ length: 5 }, () => row(80, { hour: 15 })),
    ];
    expect(predictStreams(byHour, { ...QUERY, hour: 15 })?.streams).toBeGreaterThan(60);
  });

  it('do not learn from another congestion control', () => {
    expect(predictStreams([row(4, { congestionControl: 'bbr' })], QUERY)?.streams).toBeGreaterThan(16);
    expect(predictStreams([row(200)], { ...QUERY, congestionControl: 'bbr' })?.streams).toBe(16);
  });

  it('come from other paths by regression where there are enough of them', () => {
    const others = Array.from({ length: 40 }, (_, index) => {
      const [rttMs, lossRatio, bytesPerSecond] = [
        10 + 7 * (index % 8),
        10 ** (-4 + (index % 5) / 2),
        5e6 * (1 + (index % 3)),
      ];
      const streams = Math.max(1, Math.round((bytesPerSecond * (rttMs / 1000) * Math.sqrt(lossRatio)) / (1.22 * 1448)));
      return row(streams, { path: `other-${index}:9876`, rttMs, lossRatio, bytesPerSecond });
    });
    const expected = (12.5e6 * 0.05 * Math.sqrt(1e-3)) / (1.22 * 1448);
    const streams = predictStreams(others, { ...QUERY, lossRatio: 1e-3 })?.streams ?? 0;
    expect(streams).toBeGreaterThan(expected / 2);
    expect(streams).toBeLessThan(expected * 2);
  });

  it('come from what a loss-based stream can carry where the loss is known, from the path’s own size where it is not', () => {
    expect(predictStreams([], { ...QUERY, lossRatio: 0.01 })?.streams).toBeCloseTo(39, -1);
    expect(predictStreams([], QUERY)?.streams).toBeGreaterThan(32);
    expect(predictStreams([], { ...QUERY, bandwidthBytesPerSecond: 1.25e6 })?.streams).toBe(8);
    expect(predictStreams([], { ...QUERY, rttMs: 1 })).toBeUndefined();
    expect(predictStreams([], { ...QUERY, bandwidthBytesPerSecond: 0 })).toBeUndefined();
  });
});

it('ridge regression finds the plane that points lie on', () => {
  const xs = Array.from({ length: 50 }, (_, index) => [1, index % 7, (index * 3) % 11]);
  const [constant = 0, first = 0, second = 0] = solveRidge(
    xs,
    xs.map(([, a = 0, b = 0]) => 2 + 0.5 * a - 3 * b),
    1e-6,
  );
  expect(constant).toBeCloseTo(2, 3);
  expect(first).toBeCloseTo(0.5, 3);
  expect(second).toBeCloseTo(-3, 3);
});
