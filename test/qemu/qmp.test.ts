/** The monitor's client against a real QEMU, and against what is none. */
import { createServer } from 'node:net';
import { join } from 'node:path';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { temporaryFolder } from '../helpers/data';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu, startGuest } from '../helpers/qemu';

describeWhere([needsQemu(), needsAssembler()])('a real monitor', () => {
  let guest: CountingGuest;
  beforeAll(() => (guest = buildCountingGuest(16, { idleTurns: 1000 })));

  test('answers commands, refuses with its own words, reports stop and resume with their time', async () => {
    const { qmp } = await startGuest(guest, 32);
    expect((await qmp.execute('query-version')).qemu.major).toBeGreaterThanOrEqual(10);
    expect(await qmp.execute('query-status')).toMatchObject({ status: 'running', running: true });
    await expect(qmp.execute('migrate-continue', { state: 'pre-switchover' })).rejects.toMatchObject({
      code: 'QEMU_REFUSED',
    });
    const stopped = qmp.event('STOP', ({ name }) => name === 'STOP', 5000);
    const resumed = qmp.event('RESUME', ({ name }) => name === 'RESUME', 5000);
    await qmp.execute('stop');
    await qmp.execute('cont');
    expect((await resumed).atMs).toBeGreaterThanOrEqual((await stopped).atMs);
    expect(Math.abs((await stopped).atMs - Date.now())).toBeLessThan(60_000);
  });

  test('says so when QEMU is killed: commands and waits end with a code', async () => {
    const { qmp, process: qemu } = await startGuest(guest, 32);
    const ended = new Promise((resolve) => qmp.onEnd((error) => resolve(error.code)));
    const waiting = qmp.event('something', () => false, 60_000);
    qemu.kill('SIGKILL');
    await expect(waiting).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    await expect(qmp.execute('query-status')).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    expect(await ended).toBe('QEMU_UNREACHABLE');
  });

  test('a wait that nothing answers ends in time', async () => {
    const { qmp } = await startGuest(guest, 32);
    await expect(qmp.event('a moon', ({ name }) => name === 'MOON', 100)).rejects.toMatchObject({
      code: 'QEMU_TIMEOUT',
    });
    qmp.close();
  });
});

describe('what is no monitor', () => {
  const listen = async (says: string): Promise<string> => {
    const path = join(temporaryFolder(), 'socket');
    const server = createServer((socket) => {
      socket.on('error', () => undefined).resume();
      socket.write(says);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    afterAllServers.push(() => server.close());
    return path;
  };
  const afterAllServers: (() => void)[] = [];
  afterAll(() => afterAllServers.forEach((close) => close()));

  test.each([
    ['other JSON', '{"hello": 1}\n'],
    ['no JSON', 'SSH-2.0-OpenSSH_9\n'],
    ['a line without end', 'x'.repeat(17 * 1024 * 1024)],
  ])('%s is refused', async (_, says) => {
    await expect(QmpClient.connect(await listen(says))).rejects.toMatchObject({ code: 'QEMU_PROTOCOL' });
  });

  test('nothing there', async () => {
    await expect(QmpClient.connect('/nowhere/qmp')).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
  });
});
