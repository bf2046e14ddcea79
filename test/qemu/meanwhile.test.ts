/**
 * What happens to a running guest while it is moved, and who else is at work in its QEMU: each has its outcome, is said once, and
 * nothing of others is touched. The guest does what the key says that is pressed at it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestPort, MemoryStart } from '../../src/hypervisor/contract';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import type { DwcpError } from '../../src/model/errors';
import { type GuestDefinition, type GuestSpec, RamLayout } from '../../src/model/guest';
import { blockCount, PAGE_SIZE_BYTES, type VmImage } from '../../src/model/image';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, countingCommand, rememberFolder } from '../helpers/guest-lab';
import { HEARS_NOTHING } from '../helpers/heard-memory';
import { describeWhere, needsRoot } from '../helpers/needs';
import { buildKeyGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { sayTo } from '../helpers/raw-monitor';
import { until, within } from '../helpers/waiting';

const EACH_MS = 30_000;
const nothing = (): void => undefined;

interface Meanwhile {
  readonly driver: HostDriver;
  readonly definition: GuestDefinition;
  readonly disk: VmImage;
  readonly folder: string;
  readonly run: string;
  readonly pid: number;
  /** As its operator says on the second monitor, whatever it is. */
  readonly say: (command: string, parameters?: Readonly<Record<string, unknown>>) => Promise<unknown>;
  readonly press: (key: string) => Promise<unknown>;
}

describeWhere([needsQemu(), needsAssembler(), needsRoot()])('a running guest, while it is moved', () => {
  let guest: Buffer;
  const ports: GuestPort[] = [];
  const others: ChildProcess[] = [];
  beforeAll(() => (guest = buildKeyGuest()));
  afterEach(async () => {
    for (const port of ports.splice(0)) {
      await port.runOn().catch(nothing);
      port.close();
    }
    for (const other of others.splice(0)) other.kill('SIGKILL');
  });

  async function started(
    args: readonly string[] = [],
    { format = 'raw', drive = '', at }: { format?: 'raw' | 'qcow2'; drive?: string; at?: string } = {},
  ): Promise<Meanwhile> {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const [run, raw, serial] = [join(folder, 'run'), join(at ?? folder, 'disk.img'), join(folder, 'serial')];
    mkdirSync(run);
    writeFileSync(raw, guest);
    truncateSync(raw, 1024 * 1024);
    const path = format === 'raw' ? raw : `${raw}.qcow2`;
    if (format === 'qcow2') execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
    const command = countingCommand(path).map((word) =>
      word === 'null'
        ? `file:${serial}`
        : word.startsWith('file=')
          ? `file=${path},format=${format},if=ide,id=d0${drive}`
          : word,
    );
    command.push(...args);
    const { qmp, places, process: qemu } = await startGuestProcess(command, run, AS_OWN);
    qmp.close();
    await until(EACH_MS, 'its boot', () => readFileSync(serial, 'utf8').includes('!'));
    const say: Meanwhile['say'] = (name, parameters) => sayTo(runPlaces(run).monitorPath, name, parameters);
    return {
      driver: new HostDriver(() => run, AS_OWN.policy),
      definition: { command, qmpPath: places.qmpPath },
      disk: { imageId: 'vda', kind: 'disk', path },
      folder,
      run,
      pid: qemu.pid,
      say,
      press: (key) => say('send-key', { keys: [{ type: 'qcode', data: key }] }),
    };
  }

  /** In its memory's rounds. */
  async function moving({ driver, definition, disk, folder }: Meanwhile): Promise<{
    readonly port: GuestPort;
    readonly failure: Promise<DwcpError>;
  }> {
    const { spec } = await driver.inspectGuest('vm', definition, [disk], false);
    const port = await driver.connectGuest('vm', definition, async (letRunOn) => {
      await letRunOn();
      return true;
    });
    ports.push(port);
    let fail: (error: DwcpError) => void = nothing;
    const failure = new Promise<DwcpError>((resolve) => (fail = resolve));
    port.onFailure(fail);
    await port.watchDisks([disk]);
    await port.startMemory(memoryOf(spec, folder));
    port.onFailure(fail);
    return { port, failure };
  }

  function memoryOf({ ramBlocks }: Pick<GuestSpec, 'ramBlocks'>, folder: string): MemoryStart {
    const { sizeBytes } = new RamLayout(ramBlocks);
    return {
      path: join(folder, 'memory.img'),
      ramBlocks,
      blankPages: () => new Uint8Array(sizeBytes / PAGE_SIZE_BYTES),
      settled: new Uint8Array(blockCount(sizeBytes)),
      autoConverge: false,
      events: HEARS_NOTHING,
    };
  }

  const statusOf = async ({ say }: Meanwhile): Promise<string> =>
    ((await say('query-status')) as { readonly status: string }).status;
  const inspect = ({ driver, definition, disk }: Meanwhile, force = false): Promise<unknown> =>
    driver.inspectGuest('vm', definition, [disk], force);
  const refusedFor = (words: string) => ({
    code: 'GUEST_REFUSED',
    message: expect.stringContaining(words) as string,
  });

  it.each([
    ['powers itself off', 'p', [], 'GUEST_POWERED_OFF', 'has powered itself off', undefined],
    ['powers itself off (-no-shutdown)', 'p', ['-no-shutdown'], 'GUEST_POWERED_OFF', 'powered itself off', 'shutdown'],
    ['resets itself (-no-reboot)', 'r', ['-no-reboot'], 'GUEST_POWERED_OFF', 'reset itself', undefined],
    ['panics', 'c', ['-device', 'pvpanic'], 'GUEST_POWERED_OFF', 'panicked', undefined],
    [
      'panics (-no-shutdown)',
      'c',
      ['-device', 'pvpanic', '-no-shutdown'],
      'GUEST_PAUSED',
      'panicked',
      'guest-panicked',
    ],
    ['goes to sleep', 's', [], 'GUEST_PAUSED', 'sleeps', 'suspended'],
  ] as const)(
    '%s: its move ends once, saying so, and the guest stays as it is',
    async (_, key, args, code, words, left) => {
      const it = await started(args);
      const { port, failure } = await moving(it);
      await it.press(key);
      expect(await within(EACH_MS, 'the end of its move', failure)).toMatchObject({
        code,
        message: expect.stringContaining(words) as string,
      });
      if (left === undefined) return;
      await port.runOn();
      expect(await statusOf(it)).toBe(left);
      port.close();
      await expect(inspect(it)).rejects.toMatchObject({ code, message: expect.stringContaining(words) as string });
    },
  );

  it.each([
    [
      'is reset by its operator (-no-reboot)',
      ['-no-reboot', '-no-shutdown'],
      'system_reset',
      /Somebody has reset .*-no-reboot/,
    ],
    ['powers itself off (-no-shutdown)', ['-no-shutdown'], 'p', /has powered itself off while it was being moved/],
  ] as const)(
    '%s while its disks are on their way: its memory is not begun, and it is said how',
    async (_, args, key, words) => {
      const it = await started(args);
      const { spec } = await it.driver.inspectGuest('vm', it.definition, [it.disk], false);
      const port = await it.driver.connectGuest('vm', it.definition, () => Promise.resolve(true));
      ports.push(port);
      await port.watchDisks([it.disk]);
      await (key === 'p' ? it.press(key) : it.say(key));
      await until(EACH_MS, 'its end', async () => (await statusOf(it)) === 'shutdown');
      await expect(port.startMemory(memoryOf(spec, it.folder))).rejects.toMatchObject({
        code: 'GUEST_POWERED_OFF',
        message: expect.stringMatching(words) as string,
        hint: expect.stringContaining('End its QEMU first') as string,
      });
    },
  );

  it('is stopped by QEMU for a disk that is full: its move ends once, and names it', async () => {
    const small = join(temporaryFolder(), 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', small]);
    try {
      const it = await started([], { drive: ',werror=stop', at: small });
      const { port, failure } = await moving(it);
      try {
        writeFileSync(join(small, 'rest'), Buffer.alloc(4 * 1024 * 1024));
      } catch {
        // That was the rest of it.
      }
      await it.press('w');
      expect(await within(EACH_MS, 'the end of its move', failure)).toMatchObject({
        code: 'GUEST_PAUSED',
        message: expect.stringMatching(/I\/O error.*no space is left/) as string,
      });
      await port.runOn();
      expect(await statusOf(it)).toBe('io-error');
      process.kill(it.pid, 'SIGKILL');
    } finally {
      execFileSync('umount', ['-l', small]);
    }
  });

  it('resets itself: it goes on moving, and runs on where that is taken back', async () => {
    const it = await started();
    const { port, failure } = await moving(it);
    await it.press('r');
    const failed = jest.fn();
    void failure.then(failed);
    await within(EACH_MS, 'its pause', port.pause(nothing));
    await within(EACH_MS, 'its end', port.complete());
    expect([failed.mock.calls, await port.standsStill()]).toEqual([[], true]);
    // Its operator resets it where it stands: it is not handed over, and not left standing either.
    await it.say('system_reset');
    await until(EACH_MS, 'its reset', async () => (await statusOf(it)) === 'prelaunch');
    expect(await port.standsStill()).toBe(false);
    await port.runOn();
    expect(await statusOf(it)).toBe('running');
  });

  it('is busy with another’s block job, or serves another’s export: refused by its name, and that goes on', async () => {
    const it = await started();
    const target = join(it.folder, 'backup.img');
    await it.say('drive-backup', { 'job-id': 'nightly', device: 'd0', target, sync: 'full', format: 'raw', speed: 1 });
    await expect(inspect(it)).rejects.toMatchObject(refusedFor('block job nightly (backup)'));
    await expect(inspect(it, true)).rejects.toMatchObject(refusedFor('block job nightly (backup)'));
    expect(await it.say('query-jobs')).toMatchObject([{ id: 'nightly', status: 'running' }]);
    await it.say('block-job-cancel', { device: 'nightly', force: true });
    await until(EACH_MS, 'the end of the job', async () => ((await it.say('query-jobs')) as unknown[]).length === 0);

    const socket = join(it.folder, 'theirs.sock');
    await it.say('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    await expect(inspect(it)).rejects.toMatchObject(refusedFor('NBD server already running'));
    const [{ inserted }] = (await it.say('query-block')) as [{ readonly inserted: { readonly 'node-name': string } }];
    await it.say('block-export-add', { type: 'nbd', id: 'pull', 'node-name': inserted['node-name'], name: 'pull' });
    await expect(inspect(it)).rejects.toMatchObject(refusedFor('export pull'));
    await it.driver.resumeGuest(it.definition);
    expect(await it.say('query-block-exports')).toMatchObject([{ id: 'pull' }]);
    await it.say('nbd-server-stop');
    await inspect(it);
  });

  it('gets a block job in its rounds: its move ends by its name, nothing of ours stays, and the job goes on', async () => {
    const it = await started();
    const { port, failure } = await moving(it);
    const target = join(it.folder, 'backup.img');
    await it.say('drive-backup', { 'job-id': 'nightly', device: 'd0', target, sync: 'full', format: 'raw', speed: 1 });
    expect(await within(EACH_MS, 'the end of its move', failure)).toMatchObject(refusedFor('nightly (backup)'));
    await expect(port.pause(nothing)).rejects.toMatchObject(refusedFor('nightly (backup)'));
    await port.runOn();
    expect([await statusOf(it), await it.say('query-jobs'), await it.say('query-block-exports')]).toMatchObject([
      'running',
      [{ id: 'nightly', status: 'running' }],
      [],
    ]);
  });

  it('has a persistent dirty bitmap: refused with what helps; --force leaves it behind', async () => {
    const it = await started([], { format: 'qcow2' });
    await it.say('block-dirty-bitmap-add', { node: 'd0', name: 'weekly', persistent: true });
    await expect(inspect(it)).rejects.toMatchObject(refusedFor('persistent dirty bitmap weekly'));
    await inspect(it, true);
  });

  it('has a monitor that somebody holds, or does not answer on it: refused with the process', async () => {
    const it = await started();
    const holder = spawn(
      'node',
      ['-e', `require('net').connect(${JSON.stringify(it.definition.qmpPath)}).on('data', () => console.log('held'))`],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    others.push(holder);
    await new Promise((resolve) => holder.stdout.once('data', resolve));
    await expect(inspect(it)).rejects.toMatchObject(refusedFor(`process ${holder.pid} (node)`));
    const ended = new Promise((resolve) => holder.once('close', resolve));
    holder.kill('SIGKILL');
    await ended;
    process.kill(it.pid, 'SIGSTOP');
    await expect(inspect(it)).rejects.toMatchObject(refusedFor(`process ${it.pid}) does not answer`));
    process.kill(it.pid, 'SIGCONT');
    await inspect(it);
  });

  it('has a QEMU that does not come to the agent’s sockets: refused with QEMU’s words', async () => {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const [run, path, qmpPath] = [join(folder, 'run'), join(folder, 'disk.img'), join(folder, 'qmp.sock')];
    writeFileSync(path, guest);
    truncateSync(path, 1024 * 1024);
    chmodSync(path, 0o666);
    const command = countingCommand(path);
    for (const withDisks of [true, false]) {
      rmSync(qmpPath, { force: true });
      const args = [...(withDisks ? command : command.slice(0, -2)), '-qmp', `unix:${qmpPath},server=on,wait=off`];
      const qemu = spawn(args[0]!, [...args.slice(1), '-run-with', 'user=nobody'], { stdio: 'inherit' });
      others.push(qemu);
      await until(EACH_MS, 'its monitor', () => statSync(qmpPath, { throwIfNoEntry: false }) !== undefined);
      const inspected = new HostDriver(() => run, AS_OWN.policy).inspectGuest(
        'vm',
        { command: withDisks ? command : command.slice(0, -2), qmpPath },
        withDisks ? [{ imageId: 'vda', kind: 'disk', path }] : [],
        false,
      );
      await expect(inspected).rejects.toMatchObject(refusedFor('Permission denied'));
    }
  });
});
