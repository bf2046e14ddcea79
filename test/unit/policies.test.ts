/** Tables that a slip would break without any test of behaviour noticing. */
import { declaredSchedules } from '../../src/control/schedules';
import { ERROR_CODES, type ErrorCodeSpec } from '../../src/model/error-codes';
import { EXIT, EXIT_MEANINGS } from '../../src/model/exit-codes';
import { PRESETS } from '../../workflows/activity-proxies';

describe('every preset of activities', () => {
  test.each(Object.entries(PRESETS))(
    '%s: bounded, capped back-off, a heartbeat where it may be long, a limit to waiting for a host',
    (name, preset) => {
      expect(preset.startToCloseTimeout).toMatch(/^\d+[smhd]$/);
      expect(preset.scheduleToStartTimeout).toBeDefined();
      expect(preset.retry.maximumInterval).toBe('15s');
      if (name !== 'brief') expect(preset.heartbeatTimeout).toBe(10_000);
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
  for (const schedule of declaredSchedules(3_600_000))
    expect(schedule).toMatchObject({ policies: { overlap: 'SKIP', catchupWindow: '1h' }, memo: { managedBy: 'dwcp' } });
});
