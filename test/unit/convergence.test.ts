/** The rule that ends memory rounds. */
import fc from 'fast-check';
import {
  type ConvergenceOptions,
  decideRound,
  expectedDowntimeMs,
  type RoundMeasurement,
} from '../../src/model/convergence';

const OPTIONS: ConvergenceOptions = {
  maxDowntimeMs: 1000,
  memoryIterations: 5,
  dirtyPageThreshold: 1000,
  mayThrottle: true,
};
const MEASURED: RoundMeasurement = {
  round: 2,
  remainingBytes: 5e6,
  remainingPages: 3000,
  remainingBytesBefore: 20e6,
  dirtyBytesPerSecond: 1e6,
  rateBytesPerSecond: 12.5e6,
  rttMs: 50,
  throttle: 0,
};

test.each<[string, Partial<RoundMeasurement>, Partial<ConvergenceOptions>, string]>([
  ['few pages left', { remainingPages: 999 }, {}, 'switch over'],
  ['so little left that the pause is hardly longer for it', { remainingBytes: 1.2e6 }, {}, 'switch over'],
  ['the last round', { round: 5 }, {}, 'switch over'],
  ['a round that no longer shrinks', { remainingBytesBefore: 5.5e6, dirtyBytesPerSecond: 4e6 }, {}, 'switch over'],
  [
    'a round that did not shrink, though the guest dirties far less than the link carries',
    { remainingBytesBefore: 5.5e6 },
    {},
    'another round',
  ],
  ['a round that shrinks', {}, {}, 'another round'],
  ['the first round', { round: 1, remainingBytesBefore: undefined }, {}, 'another round'],
  ['a pause too long, the link gaining', { remainingBytes: 50e6 }, {}, 'another round'],
  [
    'a pause too long after the last round, the link gaining',
    { remainingBytes: 50e6, remainingBytesBefore: 80e6, round: 9 },
    {},
    'another round',
  ],
  [
    'a pause too long, rounds that no longer shrink, the link gaining',
    { remainingBytes: 50e6, round: 9 },
    {},
    'throttle',
  ],
  [
    'a pause that no round makes short enough',
    { remainingBytes: 1e3, remainingBytesBefore: 1e3, round: 5 },
    { maxDowntimeMs: 100, mayThrottle: false },
    'cannot converge',
  ],
  ['a guest faster than the link', { remainingBytes: 50e6, dirtyBytesPerSecond: 20e6 }, {}, 'throttle'],
  [
    'a guest faster than the link, throttled all it may be',
    { remainingBytes: 50e6, dirtyBytesPerSecond: 20e6, throttle: 0.99 },
    {},
    'cannot converge',
  ],
  [
    'a guest faster than the link, not to be throttled',
    { remainingBytes: 50e6, dirtyBytesPerSecond: 20e6 },
    { mayThrottle: false },
    'cannot converge',
  ],
  [
    'few pages, yet a pause too long',
    { remainingPages: 10, remainingBytes: 40e3, rateBytesPerSecond: 10e3, dirtyBytesPerSecond: 0 },
    {},
    'another round',
  ],
])('%s', (_, measured, options, next) => {
  expect(decideRound({ ...MEASURED, ...measured }, { ...OPTIONS, ...options }).next).toBe(next);
});

test('never switches over with a pause that is expected to be longer than allowed', () => {
  const amount = fc.double({ min: 0, max: 1e12, noNaN: true });
  fc.assert(
    fc.property(
      fc.nat(100),
      amount,
      fc.nat(1e6),
      amount,
      amount,
      fc.nat(1000),
      fc.nat(60_000),
      (round, remainingBytes, remainingPages, dirtyBytesPerSecond, rateBytesPerSecond, rttMs, maxDowntimeMs) => {
        const measured = {
          ...MEASURED,
          round,
          remainingBytes,
          remainingPages,
          dirtyBytesPerSecond,
          rateBytesPerSecond,
          rttMs,
        };
        const { next, expectedDowntimeMs: downtimeMs, reason } = decideRound(measured, { ...OPTIONS, maxDowntimeMs });
        expect(downtimeMs).toBe(expectedDowntimeMs(measured));
        if (next === 'switch over') expect(downtimeMs).toBeLessThanOrEqual(maxDowntimeMs);
        expect(reason).toContain('round');
      },
    ),
  );
});
