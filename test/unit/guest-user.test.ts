/**
 * What a guest's user reaches: tried by programs that run as that user, as a QEMU would that its guest has taken over.
 */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { lendDisks, settleGuest, settleRunning, takeBackDevices } from '../../src/hypervisor/qemu/guest-places';
import { chooseGuestUser, type GuestIds, type GuestUser } from '../../src/hypervisor/qemu/guest-user';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { VmRegistry } from '../../src/store/vm-registry';
import { temporaryFolder } from '../helpers/data';
import { LoopDevice, needsLoopDevices } from '../helpers/loop-device';
import { describeWhere, needsRoot } from '../helpers/needs';

/** Nobody has these ids. */
const [UID, FIRST, OTHER] = [61_001, 61_100, 61_500];

describeWhere([needsRoot()])('a guest’s user', () => {
  let [folder, dataDir] = ['', ''];
  let user: GuestUser;

  const servers: Server[] = [];
  let asked = 0;
  const listen = (path: string): Promise<void> =>
    new Promise((resolve) => {
      const server = createServer((socket) => {
        asked += 1;
        socket.destroy();
      });
      servers.push(server.listen(path, resolve));
    });
  afterEach(() => servers.splice(0).forEach((server) => server.close()));

  beforeEach(() => {
    asked = 0;
    folder = temporaryFolder();
    chmodSync(folder, 0o711);
    dataDir = join(folder, 'data');
    // As an earlier release may have left it: closed at the top, and open below.
    mkdirSync(dataDir, { mode: 0o700 });
    for (const path of ['dictionaries', 'ownership', 'images', 'images/one', 'images/two'])
      mkdirSync(join(dataDir, path), { mode: 0o755 });
    for (const path of ['agent.key', 'dictionaries/x', 'ownership/one', 'images/one/vda.img', 'images/two/vda.img'])
      writeFileSync(join(dataDir, path), path, { mode: 0o644 });
    user = { name: 'guests', uid: UID, gid: UID, perVm: { first: FIRST, count: 2 }, dataDir };
  });

  const disk = (vmId: string): string => join(dataDir, 'images', vmId, 'vda.img');
  const settle = (vmId: string): GuestIds => {
    const ids = settleGuest(runPlaces(new VmRegistry(dataDir).runFolder(vmId)), user);
    lendDisks([disk(vmId)], ids!, user);
    return ids!;
  };
  const can = (ids: GuestIds, script: string, ...args: readonly string[]): boolean =>
    spawnSync('sh', ['-c', script, 'sh', ...args], { ...ids, cwd: '/' }).status === 0;

  test('reads and writes its own disk, and no key, journal, dictionary or other guest’s disk', () => {
    const [one, two] = [settle('one'), settle('two')];
    expect([one.uid, two.uid]).toEqual([FIRST, FIRST + 1]);
    for (const [ids, own, others] of [
      [one, 'one', 'two'],
      [two, 'two', 'one'],
    ] as const) {
      expect(can(ids, 'cat "$1" && echo x >> "$1"', disk(own))).toBe(true);
      for (const path of [
        disk(others),
        ...['agent.key', 'dictionaries/x', 'ownership/one'].map((at) => join(dataDir, at)),
      ])
        expect([path, can(ids, 'cat "$1" || echo x >> "$1"', path)]).toEqual([path, false]);
      for (const path of [dataDir, join(dataDir, 'images'), join(dataDir, 'images', own), join(dataDir, 'run')])
        expect([path, can(ids, 'ls "$1" || touch "$1/x"', path)]).toEqual([path, false]);
    }
    // Settled again a VM has the id that it had; where guests have another user now, its disk goes with it.
    chownSync(disk('one'), OTHER, OTHER);
    expect(settle('one')).toEqual(one);
    expect(statSync(disk('one')).uid).toBe(one.uid);
    expect(() => settle('three')).toThrow('all are taken');
  });

  test('makes sockets in its folder, and puts nothing in the place of the agent’s', () => {
    const ids = settle('one');
    const places = runPlaces(new VmRegistry(dataDir).runFolder('one'));
    writeFileSync(places.logPath, 'what QEMU says', { mode: 0o600 });
    expect(can(ids, 'touch "$1"', places.qmpPath)).toBe(true);
    expect(can(ids, 'mv "$1" "$1.away"', places.folder)).toBe(false);
    expect(can(ids, 'mv "$1" "$1.away"', places.agentFolder)).toBe(false);
    for (const path of [places.logPath, places.outgoingPath, places.mirrorPath])
      expect([path, can(ids, 'rm -f "$1" && ln -s /etc/passwd "$1"', path)]).toEqual([path, false]);
    expect(can(settle('two'), 'ls "$1"', places.folder)).toBe(false);
  });

  test('shares one id where it has no others', () => {
    user = { ...user, perVm: undefined };
    expect([settle('one').uid, settle('two').uid]).toEqual([UID, UID]);
  });

  test('is lent what is root’s, where root alone can have put it', () => {
    const theirs = join(folder, 'theirs');
    mkdirSync(theirs);
    const at = (name: string): string => join(folder, name);
    for (const path of [at('disk'), at('not-roots'), join(theirs, 'roots')]) writeFileSync(path, 'x', { mode: 0o644 });
    chownSync(at('not-roots'), OTHER, OTHER);
    chownSync(theirs, OTHER, OTHER);
    symlinkSync(at('secret'), join(theirs, 'link'));
    writeFileSync(at('secret'), 'x', { mode: 0o600 });
    symlinkSync(at('disk'), at('link'));
    const ids = settle('one');
    lendDisks([at('not-roots'), join(theirs, 'roots'), join(theirs, 'link'), at('missing'), theirs], ids, user);
    const owners = (): number[] =>
      [at('not-roots'), join(theirs, 'roots'), at('secret'), theirs].map((path) => lstatSync(path).uid);
    expect(owners()).toEqual([OTHER, 0, 0, OTHER]);
    lendDisks([at('link')], ids, user);
    expect(statSync(at('disk'))).toMatchObject({ uid: ids.uid, gid: 0 });
    expect(lstatSync(at('link')).uid).toBe(0);
  });

  test('is lent a block device while its guest is here, and root has it again', () => {
    const missing = needsLoopDevices();
    if (missing !== undefined && process.env.CI !== 'true') return void process.stderr.write(`SKIPPED: ${missing}\n`);
    const device = new LoopDevice(65_536);
    const { uid, gid, mode } = statSync(device.path);
    const ids = settle('one');
    expect(can(ids, 'head -c 512 "$1"', device.path)).toBe(false);
    lendDisks([device.path], ids, user);
    expect(statSync(device.path)).toMatchObject({ uid: ids.uid, gid });
    expect(can(ids, 'head -c 512 "$1" && echo x > "$1"', device.path)).toBe(true);
    takeBackDevices([device.path, disk('one'), '/dev/null', '/dev/none'], user);
    expect(statSync(device.path)).toMatchObject({ uid, gid, mode });
    expect(statSync(disk('one')).uid).toBe(ids.uid);
  });

  test('of a guest that runs already is whom its monitor belongs to, whoever else says so', async () => {
    const places = runPlaces(new VmRegistry(dataDir).runFolder('one'));
    mkdirSync(places.folder, { recursive: true });
    writeFileSync(join(places.folder, 'serial.log'), 'of an earlier release');
    expect(settleRunning(places, places.qmpPath, user)).toBeUndefined();
    await listen(places.qmpPath);
    expect(settleRunning(places, places.qmpPath, user)).toBeUndefined();
    expect(statSync(places.folder)).toMatchObject({ uid: 0 });
    chownSync(places.qmpPath, FIRST, UID);
    const ids = settleRunning(places, places.qmpPath, user);
    expect(ids).toEqual({ uid: FIRST, gid: UID });
    expect([places.folder, places.agentFolder].map((path) => statSync(path).uid)).toEqual([FIRST, 0]);
    expect(can(ids!, 'touch "$1" && echo x > "$2"', places.nbdPath, join(places.folder, 'serial.log'))).toBe(true);
    chownSync(places.qmpPath, OTHER, OTHER);
    settleRunning(places, places.qmpPath, user);
    expect(statSync(places.folder).uid).toBe(FIRST);
  });

  test('neither signals nor looks into the agent, which ends it', () => {
    const ids = settle('one');
    expect(can(ids, 'kill -0 "$1"', String(process.pid))).toBe(false);
    for (const file of ['environ', 'mem', 'fd/0'])
      expect([file, can(ids, 'head -c 1 "/proc/$1/$2"', String(process.pid), file)]).toEqual([file, false]);
    const theirs = spawn('sleep', ['60'], { ...ids, stdio: 'ignore' });
    expect(readdirSync(`/proc/${theirs.pid ?? 0}/fd`).length).toBeGreaterThan(0);
    expect(theirs.kill('SIGKILL')).toBe(true);
  });

  test('does not lead root to another’s socket', async () => {
    const ids = settle('one');
    const places = runPlaces(new VmRegistry(dataDir).runFolder('one'));
    await listen(join(folder, 'other.sock'));
    expect(can(ids, 'ln -s "$1" "$2"', join(folder, 'other.sock'), places.qmpPath)).toBe(true);
    await expect(QmpClient.connect(places.qmpPath)).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    expect(asked).toBe(0);
    expect(can(ids, 'rm "$1" && mkfifo "$1"', places.qmpPath)).toBe(true);
    await expect(QmpClient.connect(places.qmpPath)).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    await listen(places.nbdPath);
    await expect(QmpClient.connect(places.nbdPath)).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    expect(asked).toBe(1);
  });

  test('is chosen where it can do what it has to', () => {
    chmodSync(folder, 0o711);
    expect(chooseGuestUser('nobody', dataDir).user).toMatchObject({ name: 'nobody', uid: 65_534, dataDir });
    expect(chooseGuestUser('root', dataDir)).toEqual({ user: undefined, asRoot: undefined });
    for (const [wanted, why] of [
      ['no-such-user', 'there is no user no-such-user'],
      ['nobody', 'is not let through'],
    ] as const) {
      chmodSync(folder, 0o700);
      expect(() => chooseGuestUser(wanted, dataDir)).toThrow(why);
    }
  });

  test('is nobody’s choice but root’s', () => {
    const us = jest.spyOn(process, 'getuid').mockReturnValue(65_534);
    try {
      for (const wanted of ['', 'nobody'])
        expect(chooseGuestUser(wanted, dataDir)).toEqual({ user: undefined, asRoot: undefined });
      expect(() => chooseGuestUser('root', dataDir)).toThrow('only an agent that is root');
    } finally {
      us.mockRestore();
    }
  });
});
