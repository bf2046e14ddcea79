/**
 * A guest with a TPM: a swtpm of its own at each host, as the guest's QEMU needs it, with what the TPM holds; ended with the guest, and gone
 * where the guest is not. What cannot go is refused by name.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isListenedAt, killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { countingCommand, expectCounting, lookAt, startCommandOn } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere, needsProgram } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 64;

describeWhere([needsQemu(), needsAssembler(), needsProgram('swtpm', 'swtpm')])('a guest with a TPM', () => {
  let guest: CountingGuest;
  const shared = sharedLab({ own: true });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 200 })));

  const runOf = (host: LabHost, vmId: string): string => new VmRegistry(host.dataDir).runFolder(vmId);
  const stateOf = (host: LabHost, vmId: string): string => join(runOf(host, vmId), '..', `.${vmId}`, 'tpm');
  const socketOf = (host: LabHost, vmId: string): string => join(runOf(host, vmId), 'tpm.sock');

  /** @param path of its TPM's socket; in the guest's run folder DWCP starts that */
  async function start(lab: Lab, vmId: string, path = socketOf(lab.a, vmId)): Promise<void> {
    const tpm = [
      '-chardev',
      `socket,id=c,path=${path}`,
      '-tpmdev',
      'emulator,id=t,chardev=c',
      '-device',
      'tpm-tis,tpmdev=t',
    ];
    await startCommandOn(lab, vmId, guest.image, (disk) => [...countingCommand(disk), ...tpm]);
    const counts = async (): Promise<boolean> =>
      (await lookAt(lab.a, vmId, { pages: 1, writesDisk: false })).counts[0]! >= 3;
    expect(await until(counts, { everyMs: 50, withinMs: 20_000 })).toBe(true);
  }

  test.each([true, false])('goes there and back with what its TPM holds, by DWCP or not: %s', async (enableDwcp) => {
    const lab = await shared();
    const vmId = `tpm-${String(enableDwcp)}`;
    await start(lab, vmId);
    const held = readFileSync(join(stateOf(lab.a, vmId), 'tpm2-00.permall'));
    for (const [from, to] of [
      [lab.a, lab.b],
      [lab.b, lab.a],
    ] as const) {
      const id = await lab.orchestrator.migrateVm(vmId, from.hostId, to.hostId, { enableDwcp });
      expect(await lab.result(id)).toMatchObject({ guest: { responds: true } });
      await expectCounting(to, vmId, PAGES, 1);
      expect(readFileSync(join(stateOf(to, vmId), 'tpm2-00.permall')).equals(held)).toBe(true);
      expect(await until(() => !isListenedAt(socketOf(from, vmId)), { everyMs: 20, withinMs: 10_000 })).toBe(true);
      expect(existsSync(stateOf(from, vmId))).toBe(false);
    }
    await lab.untilClean();
  });

  test('where it does not come after all nothing of its TPM stays, and where it is it goes on', async () => {
    const lab = await shared();
    await start(lab, 'stays');
    const held = readFileSync(join(stateOf(lab.a, 'stays'), 'tpm2-00.permall'));
    mkdirSync(join(lab.a.dataDir, 'hooks', 'before-pause.d'), { recursive: true });
    writeFileSync(join(lab.a.dataDir, 'hooks', 'before-pause.d', 'no'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const id = await lab.migrate('stays');
    await lab.until(id, 'a veto', (status) => status.progress?.parked !== undefined);
    expect(existsSync(stateOf(lab.b, 'stays'))).toBe(true);
    await lab.orchestrator.cancelMigration(id);
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
    const isGone = (): boolean => !existsSync(stateOf(lab.b, 'stays')) && !isListenedAt(socketOf(lab.b, 'stays'));
    expect(await until(isGone, { everyMs: 20, withinMs: 10_000 })).toBe(true);
    rmSync(join(lab.a.dataDir, 'hooks'), { recursive: true });
    expect(await lab.result(await lab.migrate('stays'))).toMatchObject({ guest: { responds: true } });
    expect(readFileSync(join(stateOf(lab.b, 'stays'), 'tpm2-00.permall')).equals(held)).toBe(true);
    await lab.untilClean();
  });

  test('its state is encrypted with a key of its host: refused by name; and one that does not run stays', async () => {
    const lab = await shared();
    const [path, state, key] = ['sock', 'state', 'key'].map((name) => join(lab.folder, `tpm-${name}`)) as [
      string,
      string,
      string,
    ];
    mkdirSync(state);
    writeFileSync(key, '0123456789abcdef0123456789abcdef', { mode: 0o600 });
    const args = ['--ctrl', `type=unixio,path=${path}`, '--key', `file=${key},format=hex,mode=aes-cbc`, '--terminate'];
    const swtpm = spawn('swtpm', ['socket', '--tpm2', '--tpmstate', `dir=${state}`, ...args], { stdio: 'inherit' });
    const ended = new Promise((resolve) => swtpm.once('close', resolve));
    await until(() => isListenedAt(path), { everyMs: 10, withinMs: 10_000 });
    await start(lab, 'keyed', path);
    await expect(lab.result(await lab.migrate('keyed'))).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(/TPM is encrypted with a key of this host \(swtpm --key/) as string,
    });
    killGuestsNaming([lab.a.dataDir]);
    await ended;
    await until(() => !isListenedAt(path), { everyMs: 10, withinMs: 10_000 });
    await expect(lab.result(await lab.migrate('keyed'))).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(/state of its TPM stays behind/) as string,
    });
    await lab.untilClean();
  });
});
