/** When a running guest may be paused as far as its disks go, and what becomes of one that writes faster than the link carries it. */
import { type DiskRoundMeasurement, decideDiskRound, SMALL_DISK_ROUND_BYTES } from '../../src/model/disk-convergence';
import { MIB } from '../../src/model/units';

const RATE = 2_500_000;
const OPTIONS = { maxDowntimeMs: 2_000, maySlowDown: true };
const MUST_NOT = { ...OPTIONS, maySlowDown: false };

function round(writtenBytes: number, extra: Partial<DiskRoundMeasurement> = {}): DiskRoundMeasurement {
  return {
    ...{ writtenBytes, wireBytes: writtenBytes, seconds: 1, rateBytesPerSecond: RATE, rttMs: 20, stalledBefore: 0 },
    ...extra,
  };
}

test('little that fits is left to the last round, however it changes', () => {
  expect(decideDiskRound(round(0), OPTIONS).next).toBe('small enough');
  expect(decideDiskRound(round(SMALL_DISK_ROUND_BYTES, { wireBytesBefore: 1 }), OPTIONS).next).toBe('small enough');
});

test('what fits is sent in further rounds for as long as they shrink', () => {
  const written = 2_200_000;
  expect(decideDiskRound(round(written, { wireBytesBefore: 2 * written }), OPTIONS).next).toBe('another round');
  expect(decideDiskRound(round(written, { wireBytesBefore: written }), OPTIONS).next).toBe('small enough');
});

test('what does not fit goes on for as long as rounds shrink, and once where the link gains on the guest', () => {
  const written = 50 * MIB;
  const shrinking = round(written, { seconds: 5, wireBytesBefore: 2 * written });
  expect(decideDiskRound(shrinking, OPTIONS)).toMatchObject({ next: 'another round', stalled: 0 });
  const gained = round(written, { seconds: 60, wireBytesBefore: written });
  expect(decideDiskRound(gained, OPTIONS)).toMatchObject({ next: 'another round', stalled: 1 });
  expect(decideDiskRound({ ...gained, stalledBefore: 1 }, OPTIONS).next).toBe('slow down');
});

test('a guest that outruns the link is slowed down to what leaves a third of a round to the next, by what travels of its writes', () => {
  const raw = decideDiskRound(round(50 * MIB, { seconds: 5, wireBytesBefore: 50 * MIB }), OPTIONS);
  expect(raw).toMatchObject({ next: 'slow down', limitBytesPerSecond: 0.3 * RATE });
  const packed = round(100 * MIB, { wireBytes: 50 * MIB, seconds: 5, wireBytesBefore: 50 * MIB });
  expect(decideDiskRound(packed, OPTIONS)).toMatchObject({ next: 'slow down', limitBytesPerSecond: 0.6 * RATE });
});

test('one that writes here and there is slowed down further by what came of the first limit, down to an end', () => {
  const seen = { wireBytes: 50 * MIB, seconds: 5, wireBytesBefore: 50 * MIB, rateBytesPerSecond: 4 * RATE };
  let limitBytesPerSecond: number | undefined;
  let stalledBefore = 0;
  const limits: number[] = [];
  for (let turn = 0; ; turn += 1) {
    const decision = decideDiskRound(round(50 * MIB, { ...seen, limitBytesPerSecond, stalledBefore }), OPTIONS);
    if (decision.next === 'cannot converge') break;
    if (decision.next === 'slow down') limits.push((limitBytesPerSecond = decision.limitBytesPerSecond!));
    stalledBefore = decision.stalled;
    expect(turn).toBeLessThan(20);
  }
  expect(limits.length).toBeGreaterThan(2);
  for (const [at, limit] of limits.entries()) if (at > 0) expect(limit).toBeLessThan(limits[at - 1]!);
  expect(limits.at(-1)).toBeGreaterThanOrEqual(65_536);
  expect(limits.at(-1)).toBeLessThan(65_536 / 0.9);
});

test('one that may not be slowed down ends the move with its third round that does not shrink, and with the figures', () => {
  const measured = round(50 * MIB, { seconds: 5, wireBytesBefore: 50 * MIB });
  expect(decideDiskRound(measured, MUST_NOT)).toMatchObject({ next: 'another round', stalled: 1 });
  expect(decideDiskRound({ ...measured, stalledBefore: 1 }, MUST_NOT).next).toBe('another round');
  const last = decideDiskRound({ ...measured, stalledBefore: 2 }, MUST_NOT);
  expect(last.next).toBe('cannot converge');
  expect(last.reason).toMatch(/writes to its disks at 83\.\d Mbit\/s, sent at 20\.0 Mbit\/s, 50\.0 MiB left/);
});
