/** Tables that a slip would break without any test of behaviour noticing. That activities beat: activities.test.ts. */
import { msToNumber } from '@temporalio/common/lib/time';
import { declaredSchedules } from '../../src/control/schedules';
import type { ErrorCodeSpec } from '../../src/model/error-code-spec';
import { ERROR_CODES } from '../../src/model/error-codes';
import { EXIT, EXIT_MEANINGS } from '../../src/model/exit-codes';
import { HEARTBEAT_THROTTLE_MS, HEARTBEAT_TICK_MS, HOST_PATIENCE_MS } from '../../src/model/timing';
import { PRESETS } from '../../workflows/activity-proxies';

/** Notice of an agent that is gone, where nothing beats, comes with the end of its time. */
const MOST_WITHOUT_BEAT_MS = 60_000;

describe('every preset of activities', () => {
  test.each(Object.entries(PRESETS))(
    '%s: bounded, tried again soon, its agent’s end noticed, a limit to waiting for a host',
    (_, { startToCloseTimeout, scheduleToStartTimeout, heartbeatTimeout, retry }) => {
      const lastsAtMostMs = msToNumber(startToCloseTimeout);
      expect(lastsAtMostMs).toBeGreaterThan(0);
      expect(msToNumber(scheduleToStartTimeout)).toBeLessThanOrEqual(HOST_PATIENCE_MS);
      expect(msToNumber(retry.maximumInterval ?? '1000h')).toBeLessThanOrEqual(60_000);
      if (heartbeatTimeout === undefined) expect(lastsAtMostMs).toBeLessThanOrEqual(MOST_WITHOUT_BEAT_MS);
      // A beat that comes late, or is lost, is no death.
      else expect(heartbeatTimeout).toBeGreaterThanOrEqual(3 * (HEARTBEAT_TICK_MS + HEARTBEAT_THROTTLE_MS));
    },
  );

  test('only what may be given up has a limit of attempts', () => {
    const limited = Object.entries(PRESETS)
      .filter(([, preset]) => 'maximumAttempts' in preset.retry)
      .map(([name]) => name);
    expect(limited).toEqual(['handOver', 'handOverByLink', 'courtesy']);
  });
});

describe('every error code', () => {
  test.each(Object.entries<ErrorCodeSpec>(ERROR_CODES))(
    '%s says what it means and what to do, and has a documented exit code',
    (_, spec) => {
      expect(spec.meaning.length).toBeGreaterThan(10);
      expect(spec.mend.length).toBeGreaterThan(5);
      expect(Object.values(EXIT)).toContain(spec.exitCode);
    },
  );

  test('falls back only for what is permanent', () => {
    for (const [code, spec] of Object.entries<ErrorCodeSpec>(ERROR_CODES))
      if (spec.fallback) expect([code, spec.retry]).toEqual([code, 'permanent']);
  });

  test('exit codes are told apart and explained', () => {
    expect(new Set(Object.values(EXIT)).size).toBe(Object.keys(EXIT).length);
    expect(Object.keys(EXIT_MEANINGS)).toEqual(Object.keys(EXIT));
  });
});

test('schedules never overlap with themselves and do not catch up for long', () => {
  const schedules = declaredSchedules(3_600_000);
  expect(schedules).not.toEqual([]);
  for (const schedule of schedules)
    expect(schedule).toMatchObject({ policies: { overlap: 'SKIP', catchupWindow: '1h' }, memo: { managedBy: 'dwcp' } });
});
