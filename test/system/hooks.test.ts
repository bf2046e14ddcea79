/**
 * Hooks of both hosts beside real migrations: where each stands in one, what it is told, and that a no comes before the first byte and
 * before any pause. Programs, their order and their end by themselves are test/unit/hooks.test.ts's.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../../src/system/wait';
import { ask, countingCommand, isRunning, startCommandOn } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const MAC = '52:54:00:aa:00:01';
const EVENTS = ['prepare', 'before-pause', 'after-start', 'released', 'rolled-back'];

interface Told {
  readonly event: string;
  readonly atMs: number;
  readonly [name: string]: unknown;
}

describeWhere([needsQemu(), needsAssembler()])('the hooks of two hosts', () => {
  let guest: CountingGuest;
  const shared = sharedLab({ own: true });
  beforeAll(() => (guest = buildCountingGuest(64, { idleTurns: 200 })));

  const hookOf = (host: LabHost, event: string): string => join(host.dataDir, 'hooks', `${event}.d`, '10-test');
  /** @param script comes before what writes down that it has run */
  function hook(host: LabHost, event: string, script = ''): void {
    const path = hookOf(host, event);
    mkdirSync(join(path, '..'), { recursive: true });
    const log = join(host.dataDir, 'hooks', 'log');
    mkdirSync(log, { recursive: true });
    const ran = `at=$(date +%s%3N); text=$(cat); printf '{"atMs":%s,%s\\n' $at "\${text#?}" > ${log}/.$at-${event} && mv ${log}/.$at-${event} ${log}/$at-${event}`;
    writeFileSync(path, `#!/bin/sh\n${ran}\n${script}\n`);
    chmodSync(path, 0o755);
  }
  function allHooks(lab: Lab): void {
    for (const host of [lab.a, lab.b]) {
      rmSync(join(host.dataDir, 'hooks'), { recursive: true, force: true });
      for (const event of EVENTS) hook(host, event);
    }
  }
  function told(host: LabHost, vmId: string): Told[] {
    const log = join(host.dataDir, 'hooks', 'log');
    const names = existsSync(log)
      ? readdirSync(log)
          .filter((name) => !name.startsWith('.'))
          .sort()
      : [];
    return names
      .map((name) => JSON.parse(readFileSync(join(log, name), 'utf8')) as Told)
      .filter(({ vm }) => vm === vmId);
  }
  const eventsAt = (host: LabHost, vmId: string): string[] => told(host, vmId).map(({ event }) => event);
  const untilTold = (host: LabHost, vmId: string, event: string): Promise<boolean> =>
    until(() => eventsAt(host, vmId).includes(event), { everyMs: 20, withinMs: 20_000 });

  async function start(lab: Lab, vmId: string): Promise<void> {
    await startCommandOn(lab, vmId, guest.image, (disk) => {
      const command = countingCommand(disk);
      command[command.indexOf('-nic') + 1] = `user,id=n0,model=virtio-net-pci,mac=${MAC}`;
      return command;
    });
  }

  /** Runs it while somebody watches when the guest was stopped. */
  async function stopsDuring<T>(lab: Lab, vmId: string, run: () => Promise<T>): Promise<{ stops: number[]; value: T }> {
    const stops: number[] = [];
    return ask(lab.a, vmId, async (qmp) => {
      const stop = qmp.onEvent(({ name, atMs }) => void (name === 'STOP' && stops.push(atMs)));
      const value = await run();
      stop();
      return { stops, value };
    });
  }

  test('a guest that moves: each in its place, with what it is about; what is told holds nobody up', async () => {
    const lab = await shared();
    allHooks(lab);
    const go = join(lab.folder, 'go');
    hook(lab.b, 'after-start', `while [ ! -e ${go} ]; do sleep 0.05; done; touch ${go}-ended`);
    await start(lab, 'all');
    const { stops, value: migrationId } = await stopsDuring(lab, 'all', async () => {
      const id = await lab.migrate('all');
      await lab.result(id);
      return id;
    });
    expect(existsSync(`${go}-ended`)).toBe(false);
    writeFileSync(go, '');
    await untilTold(lab.a, 'all', 'released');
    await untilTold(lab.b, 'all', 'after-start');
    const [source, destination] = [told(lab.a, 'all'), told(lab.b, 'all')];
    expect(source.map(({ event }) => event)).toEqual(['prepare', 'before-pause', 'released']);
    expect(destination.map(({ event }) => event)).toEqual(['prepare', 'after-start']);
    for (const [side, calls, host] of [
      ['source', source, lab.a],
      ['destination', destination, lab.b],
    ] as const)
      for (const call of calls)
        expect(call).toMatchObject({
          ...{ v: 1, vm: 'all', migration: migrationId, side, host: host.hostId, attempt: 1, fence: 1, running: true },
          ...{ sourceHost: lab.a.hostId, destinationHost: lab.b.hostId },
          networks: [{ mac: MAC, kind: 'user', netdev: 'n0', model: 'virtio-net-pci' }],
        });
    expect(stops).toHaveLength(1);
    expect(source[1]!.atMs).toBeLessThanOrEqual(stops[0]!);
    expect(destination[1]).toMatchObject({ details: { resumedAtMs: expect.any(Number) as number } });
    expect(destination[1]!.atMs).toBeGreaterThanOrEqual(
      (destination[1]!.details as { resumedAtMs: number }).resumedAtMs,
    );
    await lab.untilClean();
  });

  test.each([
    ['the source', 'prepare', 'a'],
    ['the destination', 'prepare', 'b'],
    ['the source', 'before-pause', 'a'],
  ] as const)(
    '%s says no in %s: it waits with that line, the guest was never stopped; then it goes on',
    async (_who, event, at) => {
      const lab = await shared();
      const vmId = `no-${event}-${at}`;
      allHooks(lab);
      hook(lab[at], event, 'echo "the window is closed until 22:00" >&2; exit 1');
      await start(lab, vmId);
      const { stops, value: migrationId } = await stopsDuring(lab, vmId, async () => {
        const id = await lab.migrate(vmId);
        const { progress } = await lab.until(id, 'a veto', (status) => status.progress?.parked !== undefined);
        expect(progress?.parked?.error).toMatchObject({
          code: 'HOOK_VETO',
          side: at === 'a' ? 'source' : 'destination',
        });
        expect(progress?.parked?.error.message).toContain(
          `The hook ${event}.d/10-test of host ${lab[at].hostId} says no: the window is closed until 22:00`,
        );
        return id;
      });
      expect(stops).toEqual([]);
      expect(await isRunning(lab.a, vmId)).toBe(true);
      if (event === 'prepare') expect(existsSync(join(lab.b.dataDir, 'images', vmId))).toBe(false);
      hook(lab[at], event);
      await lab.orchestrator.retryMigration(migrationId);
      expect(await lab.result(migrationId)).toMatchObject({ outcome: 'completed', guest: { responds: true } });
      const attempts = told(lab[at], vmId).flatMap((call) => (call.event === event ? [call.attempt] : []));
      expect(attempts).toEqual([1, 2]);
      expect([...eventsAt(lab.a, vmId), ...eventsAt(lab.b, vmId)]).not.toContain('rolled-back');
      await lab.untilClean();
    },
  );

  test('a no that is taken for an answer: cancelled, and both hosts hear that all is as before', async () => {
    const lab = await shared();
    allHooks(lab);
    hook(lab.a, 'before-pause', 'echo no; exit 1');
    await start(lab, 'cancelled');
    const { stops } = await stopsDuring(lab, 'cancelled', async () => {
      const id = await lab.migrate('cancelled');
      await lab.until(id, 'a veto', (status) => status.progress?.parked !== undefined);
      await lab.orchestrator.cancelMigration(id);
      await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
    });
    expect(stops).toEqual([]);
    expect(await isRunning(lab.a, 'cancelled')).toBe(true);
    await untilTold(lab.a, 'cancelled', 'rolled-back');
    await untilTold(lab.b, 'cancelled', 'rolled-back');
    expect(eventsAt(lab.a, 'cancelled')).toEqual(['prepare', 'before-pause', 'rolled-back']);
    expect(eventsAt(lab.b, 'cancelled')).toEqual(['prepare', 'rolled-back']);
    expect(told(lab.a, 'cancelled').at(-1)).toMatchObject({ destinationHost: lab.b.hostId, networks: [{ mac: MAC }] });
    await lab.untilClean();
  });

  test('a VM that stands still: prepared and released, and never paused or started', async () => {
    const lab = await shared();
    allHooks(lab);
    await lab.defineVm('still', 1024 * 1024);
    expect(await lab.result(await lab.migrate('still'))).toMatchObject({ outcome: 'completed' });
    await untilTold(lab.a, 'still', 'released');
    expect(eventsAt(lab.a, 'still')).toEqual(['prepare', 'released']);
    expect(eventsAt(lab.b, 'still')).toEqual(['prepare']);
    expect(told(lab.b, 'still')[0]).toMatchObject({ running: false, networks: [] });
    await lab.untilClean();
  });
});
