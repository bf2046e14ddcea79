/** The machine of a guest that does not run: named by the version that this host's QEMU means, before another host's QEMU is asked. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN } from '../helpers/guest-lab';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const elsewhere = (words: readonly string[], qemuFolder = ''): Promise<string[]> =>
  new HostDriver(() => temporaryFolder(), { ...AS_OWN.policy, qemuFolder }).commandElsewhere({
    command: ['qemu-system-x86_64', ...words],
    qmpPath: join('/nowhere', 'qmp'),
  });

describeWhere([needsQemu()])('the machine of a guest that does not run', () => {
  const version = (): string =>
    /version (\d+\.\d+)/.exec(execFileSync('qemu-system-x86_64', ['--version'], { encoding: 'utf8' }))?.[1] ?? '';

  it.each([
    [
      ['-M', 'q35,usb=off', '-m', '64'],
      ['-M', 'pc-q35-VERSION,usb=off', '-m', '64'],
    ],
    [
      ['-machine', 'type=pc'],
      ['-machine', 'pc-i440fx-VERSION'],
    ],
    [
      ['-m', '64'],
      ['-m', '64', '-machine', 'pc-i440fx-VERSION'],
    ],
    [
      ['-machine', 'usb=off', '-m', '64'],
      ['-machine', 'pc-i440fx-VERSION,usb=off', '-m', '64'],
    ],
    [
      ['-M', 'pc-q35-8.2'],
      ['-M', 'pc-q35-8.2'],
    ],
  ])('%j goes over as %j', async (words, expected) => {
    const named = expected.map((word) => word.replace('VERSION', version()));
    expect(await elsewhere(words)).toEqual(['qemu-system-x86_64', ...named]);
  });

  it('stays as it was said where this host has no QEMU to ask', async () => {
    expect(await elsewhere(['-M', 'q35'], temporaryFolder())).toEqual(['qemu-system-x86_64', '-M', 'q35']);
  });
});
