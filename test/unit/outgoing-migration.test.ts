/**
 * Who has stopped a guest while it is moved, QEMU or its operator: every order in which a monitor may say so. Real QEMUs are looked
 * at by test/qemu.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OutgoingMigration } from '../../src/hypervisor/qemu/outgoing-migration';
import type { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import type { QmpEvent } from '../../src/hypervisor/qemu/qmp-schemas';
import type { DwcpError } from '../../src/model/errors';
import { temporaryFolder } from '../helpers/data';
import { after } from '../helpers/waiting';

/** A monitor that says what a test has it say. */
class Monitor {
  /** What `query-status` is answered. */
  status = 'running';
  migration = 'active';
  ended = false;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #acknowledges: boolean;

  constructor(acknowledges: boolean) {
    this.#acknowledges = acknowledges;
  }

  get client(): QmpClient {
    return this as unknown as QmpClient;
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  event(_what: string, matches: (event: QmpEvent) => boolean): Promise<QmpEvent> {
    return new Promise((resolve) => {
      const stop = this.onEvent((event) => {
        if (!matches(event)) return;
        stop();
        resolve(event);
      });
    });
  }

  execute(command: string): Promise<unknown> {
    if (this.ended) return Promise.reject(new Error('QEMU has ended'));
    if (command === 'migrate_cancel') this.say('MIGRATION', { status: 'cancelled' });
    const answers: Readonly<Record<string, unknown>> = {
      'query-migrate-capabilities': this.#acknowledges ? [{ capability: 'switchover-ack', state: false }] : [],
      'query-status': { status: this.status, running: this.status === 'running' },
      'query-migrate': { status: this.migration },
    };
    return Promise.resolve(answers[command] ?? {});
  }

  say(name: string, data: Readonly<Record<string, unknown>> = {}, atMs = Date.now()): void {
    for (const listener of [...this.#listeners]) listener({ name, data, atMs });
  }

  /** The guest stands still, and at its switchover that needs no acknowledgement. */
  isAtSwitchover(): void {
    this.status = 'finish-migrate';
    this.migration = 'pre-switchover';
    this.say('MIGRATION', { status: 'pre-switchover' });
  }
}

async function started(acknowledges: boolean): Promise<{
  readonly monitor: Monitor;
  readonly outgoing: OutgoingMigration;
  readonly path: string;
  readonly failures: string[];
}> {
  const monitor = new Monitor(acknowledges);
  const path = join(temporaryFolder(), 'outgoing');
  const outgoing = new OutgoingMigration(monitor.client, path, { feed: () => undefined });
  const failures: string[] = [];
  outgoing.onFailure((error: DwcpError) => failures.push(error.code));
  await outgoing.start();
  begun.push(outgoing);
  return { monitor, outgoing, path, failures };
}

const begun: OutgoingMigration[] = [];
afterEach(async () => {
  for (const outgoing of begun.splice(0)) await outgoing.cancel().catch(() => undefined);
});

const paused = { code: 'GUEST_PAUSED' };
const nobody = (): void => undefined;
/** Longer than the clock's step. */
const LATER_MS = 3;

test.each(['paused', 'finish-migrate', 'running'])(
  'a stop while the switchover is held back is somebody’s, though QEMU answers %s by then',
  async (status) => {
    const { monitor, outgoing, failures } = await started(true);
    monitor.status = status;
    monitor.say('STOP');
    if (status === 'finish-migrate') monitor.isAtSwitchover();
    await after(0);
    expect(failures).toEqual(['GUEST_PAUSED']);
    monitor.isAtSwitchover();
    await expect(outgoing.letSwitchOver(nobody)).rejects.toMatchObject(paused);
  },
);

test('a stop of before, which is heard of only when the guest may be stopped, is somebody’s too', async () => {
  const { monitor, outgoing, failures } = await started(true);
  const stoppedAtMs = Date.now();
  await after(LATER_MS);
  let heard = 0;
  const over = outgoing.letSwitchOver(() => (heard += 1));
  over.catch(nobody);
  monitor.say('STOP', {}, stoppedAtMs);
  monitor.isAtSwitchover();
  await expect(over).rejects.toMatchObject(paused);
  expect([failures, heard]).toEqual([['GUEST_PAUSED'], 0]);
});

test('a stop behind that is QEMU’s own, and its moment is told', async () => {
  const { monitor, outgoing, failures } = await started(true);
  let heardMs = 0;
  const over = outgoing.letSwitchOver((atMs) => (heardMs = atMs));
  const stoppedAtMs = Date.now() + LATER_MS;
  monitor.say('STOP', {}, stoppedAtMs);
  monitor.isAtSwitchover();
  await over;
  expect([failures, heardMs]).toEqual([[], stoppedAtMs]);
});

test('a QEMU whose switchover cannot be held back may come to its own stop at any time', async () => {
  const { monitor, outgoing, failures } = await started(false);
  monitor.isAtSwitchover();
  monitor.say('STOP');
  await outgoing.letSwitchOver(nobody);
  expect(failures).toEqual([]);
});

test('nobody listens for the stream of a QEMU that has ended, once it is broken off', async () => {
  const { monitor, outgoing, path } = await started(true);
  expect(existsSync(path)).toBe(true);
  monitor.ended = true;
  await expect(outgoing.cancel()).rejects.toThrow();
  expect(existsSync(path)).toBe(false);
});
