/**
 * What a guest's QEMU says of the guest while it is moved: that it has powered itself off, panicked, gone to sleep, or was stopped for a
 * disk that takes no more. The run state says it too late: a migration puts its own in that place. A reset, and a stop that QEMU
 * makes for its migration, are no news.
 */
import { DwcpError, hasCode } from '../../model/errors';
import type { QmpClient } from './qmp-client';
import type { QmpEvent } from './qmp-schemas';

const AS_STOPPED = 'Migrate it again: it moves as a stopped VM; or start it again with `dwcp vm start`';
const END_ITS_QEMU = `End its QEMU first (\`dwcp vm stop --now\`, or \`quit\` on its monitor). ${AS_STOPPED}`;
/** Of a SHUTDOWN event (qapi/run-state.json): who had the guest's QEMU ended. */
const ENDED_BY: Readonly<Record<string, string>> = {
  'guest-shutdown': 'The guest has powered itself off',
  'guest-reset': 'The guest has reset itself, and its QEMU ends there (-no-reboot)',
  'guest-panic': 'The guest has panicked, and its QEMU ends there',
  'host-qmp-system-reset': 'Somebody has reset the guest, and its QEMU ends there (-no-reboot)',
};
/** Run states in which a guest stands still, as what they are and what helps. */
const STATES: Readonly<
  Record<string, readonly [code: 'GUEST_PAUSED' | 'GUEST_POWERED_OFF', why: string, hint?: string]>
> = {
  shutdown: ['GUEST_POWERED_OFF', 'The guest has powered itself off, or was reset under -no-reboot', END_ITS_QEMU],
  'guest-panicked': ['GUEST_PAUSED', 'The guest has panicked', 'Reset it (`system_reset`, `cont`), or end its QEMU'],
  'io-error': [
    'GUEST_PAUSED',
    'QEMU has stopped the guest for an I/O error of one of its disks',
    'Make room on that disk or mend it, then `cont` on its monitor, and migrate it again',
  ],
  suspended: ['GUEST_PAUSED', 'The guest sleeps', 'Wake it (`system_wakeup` on its monitor), then migrate it again'],
  watchdog: ['GUEST_PAUSED', 'The guest’s watchdog has stopped it', 'Look at it, then `cont` or `system_reset`'],
  'internal-error': ['GUEST_PAUSED', 'QEMU cannot go on with the guest (internal-error)', 'Reset it, or end its QEMU'],
};

/** What a guest in this run state is told of, where it stands still by nobody's migration. */
export function standsIn(status: string): DwcpError {
  const [code, why, hint] = STATES[status] ?? ['GUEST_PAUSED', `The guest is in state "${status}"`];
  return new DwcpError(code, why, { side: 'source', ...(hint !== undefined && { hint }) });
}

export class GuestNews {
  #stopped: DwcpError | undefined;
  #poweredOff: DwcpError | undefined;
  readonly #stopListening: () => void;

  /** @param asleep hears of a guest that sleeps: QEMU stops it without saying so by the event of a stop */
  constructor(qmp: Pick<QmpClient, 'onEvent'>, asleep: (error: DwcpError) => void = () => undefined) {
    this.#stopListening = qmp.onEvent((event) => {
      this.#hear(event);
      if (event.name === 'SUSPEND') asleep(standsIn('suspended'));
    });
  }

  /** Why the guest stands still, where that was no operator's `stop` and no migration's. */
  get stopped(): DwcpError | undefined {
    return this.#poweredOff ?? this.#stopped;
  }

  /** Why its QEMU has ended, where it was told to; undefined where it has crashed, or was killed. */
  get poweredOff(): DwcpError | undefined {
    return this.#poweredOff;
  }

  /** What is said of a guest that stands still, with what was heard of how it came to that. */
  told(state: unknown): unknown {
    const heard = this.stopped;
    if (!heard || !hasCode(state, heard.code)) return state;
    return new DwcpError(heard.code, heard.message, { side: 'source', hint: state.hint, cause: state });
  }

  close(): void {
    this.#stopListening();
  }

  #hear({ name, data }: QmpEvent): void {
    if (name === 'RESUME' || name === 'WAKEUP') this.#stopped = undefined;
    if (name === 'SUSPEND') this.#stopped = standsIn('suspended');
    if (name === 'GUEST_PANICKED' && data.action !== 'run') this.#stopped = standsIn('guest-panicked');
    if (name === 'WATCHDOG' && data.action === 'pause') this.#stopped = standsIn('watchdog');
    if (name === 'BLOCK_IO_ERROR' && data.action === 'stop') this.#stopped = ioError(data);
    if (name === 'SHUTDOWN')
      this.#poweredOff = poweredOff(typeof data.reason === 'string' ? data.reason : 'it gives no reason');
  }
}

function poweredOff(reason: string): DwcpError {
  const why = ENDED_BY[reason] ?? `The guest’s QEMU was told to end (${reason})`;
  return new DwcpError('GUEST_POWERED_OFF', `${why} while it was being moved`, { side: 'source', hint: AS_STOPPED });
}

function ioError({ device, nospace, reason }: QmpEvent['data']): DwcpError {
  const { message, hint } = standsIn('io-error');
  const disk = typeof device === 'string' && device !== '' ? ` ${device}` : '';
  const why = nospace === true ? 'no space is left' : typeof reason === 'string' ? reason : 'I/O error';
  return new DwcpError('GUEST_PAUSED', `${message}${disk} (${why})`, { side: 'source', hint });
}
