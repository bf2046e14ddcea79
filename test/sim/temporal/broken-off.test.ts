/** How often a guest is paused for one cause: the real workflow over stand-ins of its activities. */
import { toFailure } from '../../../activities/to-failure';
import { DwcpError } from '../../../src/model/errors';
import { Lab } from './lab';

describe('a switchover that is broken off', () => {
  test.each([
    ['for a pause that was too short', 'REQUEST_TIMEOUT', 3, 'parked'],
    ['for what QEMU refuses', 'QEMU_REFUSED', 3, 'FAILED'],
    ['for what a link does', 'SESSION_LOST', 21, 'FAILED'],
  ] as const)('%s again and again ends behind so many', async (_, because, times, end) => {
    const lab = new Lab(14);
    lab.guest = true;
    let tried = 0;
    lab.behaviours.set('guestSwitchover', () => {
      tried += 1;
      const cause = new DwcpError(because, 'it is so');
      throw toFailure(new DwcpError('GUEST_RUNS_ON', 'broken off', { cause }));
    });
    lab.migrate();
    if (end === 'parked') {
      await lab.until(() => lab.run.parked, 'parked');
      expect(lab.run.query('progress')).toMatchObject({ parked: { error: { code: 'GUEST_NOT_CONVERGING' } } });
    } else expect((await lab.closed()).status).toBe(end);
    expect(tried).toBe(times);
  });
});
