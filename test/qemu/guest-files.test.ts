/**
 * What QEMU and its tools open, looked at in themselves: a raw disk is raw whatever a guest has written to it, and no header leads
 * out of a disk's own folder. And what QEMU may ask of the kernel.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import type { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { relocate } from '../../src/hypervisor/qemu/relocate';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN } from '../helpers/guest-lab';
import { describeWhere, needsRoot } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const COMMAND = ['qemu-system-x86_64', '-accel', 'tcg', '-m', '16', '-display', 'none', '-nic', 'none', '-no-shutdown'];
const POLICY = AS_OWN.policy;

let folder = '';
beforeEach(() => (folder = temporaryFolder()));
afterEach(() => killGuestsNaming([folder]));

function image(name: string, ...args: readonly string[]): string {
  const path = join(folder, name);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...args.slice(0, -1), path, args.at(-1) ?? '1M']);
  return path;
}

/** As older tools have made it: the header does not say in what format its base is. */
function forgetFormat(path: string): void {
  const bytes = readFileSync(path);
  bytes.writeUInt32BE(1, bytes.indexOf(Buffer.from('e2792aca', 'hex')));
  writeFileSync(path, bytes);
}

async function start(command: readonly string[]): Promise<QmpClient> {
  return (await startGuestProcess(command, join(folder, 'run'), AS_OWN)).qmp;
}

async function openedBy(command: readonly string[]): Promise<string[]> {
  const qmp = await start(command);
  const nodes = await qmp.execute('query-named-block-nodes');
  qmp.close();
  return nodes.flatMap(({ drv, file }) => (drv === undefined ? [] : [`${drv} ${file ?? ''}`]));
}

function driver(): HostDriver {
  return new HostDriver((vmId) => join(folder, 'run', vmId), POLICY);
}

describeWhere([needsQemu()])('the files of a guest', () => {
  test.each(['-hda', '-drive'])('a raw disk that says it is qcow2, with a base, stays raw: %s', async (flag) => {
    const disk = image('disk', '-b', '/etc/hostname', '-F', 'raw', '1M');
    const given = flag === '-hda' ? ['-hda', '/elsewhere'] : ['-drive', 'file=/elsewhere,if=ide'];
    const command = relocate(
      [...COMMAND, ...given],
      [{ from: '/elsewhere', to: disk, raw: true }],
      join(folder, 'run'),
    );
    const opened = await openedBy(command);
    expect(opened).toContain(`raw ${disk}`);
    expect(opened.join()).not.toMatch(/hostname|qcow2/);
  });

  test('a disk that names no format is not started', async () => {
    const disk = image('disk', '1M');
    for (const args of [
      ['-hda', disk],
      ['-drive', `file=${disk}`],
    ])
      await expect(start([...COMMAND, ...args])).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
  });

  test('a base outside of the disk’s folder is followed neither where its guest starts nor where it is read', async () => {
    mkdirSync(join(folder, 'vm'));
    const inside = image('vm/base', '1M');
    image('outside', '1M');
    symlinkSync(join(folder, 'outside'), join(folder, 'vm', 'link'));
    const bases: Record<string, readonly string[]> = {
      hostname: ['-b', '/etc/hostname', '-F', 'raw', '1M'],
      up: ['-b', '../outside', '-F', 'qcow2', '1M'],
      link: ['-b', 'link', '-F', 'qcow2', '1M'],
      deep: ['-b', 'vm-hostname', '-F', 'qcow2', '1M'],
      data: ['-o', `data_file=${join(folder, 'vm', 'data')},data_file_raw=on`, '1M'],
      protocol: ['-u', '-b', 'nbd:evil:1', '-F', 'raw', '1M'],
      guessed: ['-b', inside, '-F', 'qcow2', '1M'],
    };
    for (const [name, args] of Object.entries(bases)) {
      const disk = image(`vm/vm-${name}`, ...args);
      if (name === 'guessed') forgetFormat(disk);
      const command = [...COMMAND, '-drive', `file=${disk},format=qcow2`];
      await expect(start(command)).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
      const definition = { command, qmpPath: join(folder, 'qmp') };
      const disks = [{ imageId: 'vda', kind: 'disk', path: disk }] as const;
      await expect(driver().inspectStopped(definition, disks)).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
      await expect(driver().serveStopped('vm', definition, disk)).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
    }
  });

  test('a base in the disk’s own folder is read with it, also where names have commas', async () => {
    const raw = join(folder, 'base,raw');
    writeFileSync(raw, Buffer.alloc(1024 * 1024, 7));
    image('middle', '-b', raw, '-F', 'raw', '1M');
    const disk = image('top,disk', '-b', 'middle', '-F', 'qcow2', '1M');
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 8 0 64k', disk]);
    const command = [...COMMAND, '-drive', `file=${disk.replaceAll(',', ',,')},format=qcow2`];
    const served = await driver().serveStopped('vm', { command, qmpPath: join(folder, 'qmp') }, disk);
    const bytes = Buffer.alloc(128 * 1024);
    await served!.read(0, bytes);
    served!.close();
    expect([bytes[0], bytes[65_536]]).toEqual([8, 7]);
    expect((await openedBy(command)).join()).toContain(raw);
  });

  test('a disk defined as raw is read as raw at the source too', async () => {
    const disk = image('disk', '-b', '/etc/hostname', '-F', 'raw', '1M');
    const definition = { command: [...COMMAND, '-drive', `file=${disk},format=raw`], qmpPath: join(folder, 'qmp') };
    expect(await driver().serveStopped('vm', definition, disk)).toBeUndefined();
    const disks = [{ imageId: 'vda', kind: 'disk', path: disk }] as const;
    expect((await driver().inspectStopped(definition, disks)).rawDisks).toEqual([]);
  });

  test('a QEMU runs in its cage: its system calls are filtered', async () => {
    const { qmp, process } = await startGuestProcess(COMMAND, join(folder, 'run'), AS_OWN);
    const status = readFileSync(`/proc/${process.pid}/status`, 'utf8');
    const argv = readFileSync(`/proc/${process.pid}/cmdline`, 'utf8').split('\0');
    qmp.close();
    expect(status).toMatch(/^Seccomp:\s+2$/m);
    expect(argv[argv.indexOf('-sandbox') + 1]).toBe(
      'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    );
  });
});

describeWhere([needsRoot(), needsQemu()])('the files of a guest with a user of its own', () => {
  test('a guest’s user reads a stopped disk: a base that is root’s alone stays so', async () => {
    chmodSync(folder, 0o711);
    const base = image('base', '1M');
    const disk = image('disk', '-b', base, '-F', 'qcow2', '1M');
    const user = { name: 'guests', uid: 61_001, gid: 61_001, perVm: undefined, dataDir: folder };
    const driver = new HostDriver((vmId) => join(folder, 'run', vmId), { ...POLICY, user });
    const definition = { command: [...COMMAND, '-drive', `file=${disk},format=qcow2`], qmpPath: join(folder, 'qmp') };
    chmodSync(base, 0o600);
    await expect(driver.serveStopped('vm', definition, disk)).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    chmodSync(base, 0o644);
    const served = await driver.serveStopped('vm', definition, disk);
    await served!.read(0, Buffer.alloc(65_536));
    served!.close();
    expect([statSync(disk).uid, statSync(base).uid]).toEqual([61_001, 0]);
  });
});
