/**
 * A guest that does not run, tried out where it is to go: what its QEMU would say there is said before anything is sent, and nothing
 * of the trial is left. What the activity makes of it is test/integration/arriving-guest.test.ts's.
 */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { prepareStoppedGuest, type StoppedPlace } from '../../src/hypervisor/qemu/prepare-guest';
import { guestsNaming, isAlive, killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { clearRehearsals } from '../../src/hypervisor/qemu/rehearse';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN } from '../helpers/guest-lab';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const FROM = '/elsewhere/disk.img';
const COMMAND = ['qemu-system-x86_64', '-accel', 'tcg', '-m', '64', '-display', 'none', '-nodefaults'];
const DISK = ['-drive', `file=${FROM},format=raw,if=virtio`];

let dataDir = '';
let guests = '';
beforeEach(() => {
  dataDir = temporaryFolder();
  guests = temporaryFolder();
});
afterEach(() => killGuestsNaming([dataDir]));

function place(vmId: string, sizeBytes = 4 * MIB, qemuFolder = ''): StoppedPlace {
  return {
    vmId,
    images: [{ imageId: 'vda', kind: 'disk', path: join(dataDir, 'images', vmId, 'vda.img'), sizeBytes }],
    runFolder: join(dataDir, 'run', vmId),
    tryFolder: join(dataDir, 'try', vmId),
    policy: { qemuFolder, folders: [guests], networks: ['br-web'] },
  };
}

interface Tried {
  readonly raw?: boolean;
  readonly force?: boolean;
  readonly at?: StoppedPlace;
}

function tryOut(
  args: readonly string[],
  { raw = true, force = false, at = place('vm') }: Tried = {},
): Promise<unknown> {
  const guest = {
    command: [...COMMAND, ...args],
    diskPaths: { vda: FROM },
    rawDisks: raw ? ['vda'] : [],
    needsFiles: [],
  };
  return prepareStoppedGuest(guest, at, force);
}

/** Neither a process nor a file, and nothing at the places of the guest itself. */
function expectNothingLeft(): void {
  expect(guestsNaming([dataDir])).toEqual([]);
  expect(existsSync(join(dataDir, 'try')) ? readdirSync(join(dataDir, 'try')) : []).toEqual([]);
  expect(existsSync(join(dataDir, 'run')) || existsSync(join(dataDir, 'images'))).toBe(false);
}

describeWhere([needsQemu()])('a guest that does not run', () => {
  test.each([
    ['an ISO', ['-cdrom', 'GUESTS/install.iso'], 'needs GUESTS/install.iso'],
    ['a kernel', ['-kernel', 'GUESTS/vmlinuz'], 'needs GUESTS/vmlinuz'],
    ['firmware', ['-drive', 'file=GUESTS/code.fd,if=pflash,format=raw,readonly=on'], 'needs GUESTS/code.fd'],
    ['its machine', ['-M', 'pc-q35-99.0'], 'no machine pc-q35-99.0'],
    ['its machine, by type=', ['-machine', 'usb=on,type=pc-q35-99.0'], 'no machine pc-q35-99.0'],
    ['its processor model', ['-cpu', 'Pentium9'], 'no processor model Pentium9'],
    ['a bridge', ['-netdev', 'bridge,id=n,br=br-web', '-device', 'virtio-net,netdev=n'], /br-web|bridge helper/],
    ['room in an address', ['-device', 'VGA,addr=2', '-device', 'VGA,addr=2'], 'PCI: slot 2'],
  ])('needs %s, which is not there: refused in one line', async (_what, args, words) => {
    const here = args.map((word) => word.replace('GUESTS', guests));
    const failed = await tryOut([...DISK, ...here]).catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 'GUEST_REFUSED' });
    const { message } = failed as Error;
    if (typeof words === 'string') expect(message).toContain(words.replace('GUESTS', guests));
    else expect(message).toMatch(words);
    expect(message).not.toContain('\n');
    expectNothingLeft();
    await tryOut([...DISK, ...here], { force: true });
  });

  test.each([
    ['raw, of no whole sector', DISK, 10_000_001, true],
    ['of a terabyte', DISK, 2 ** 40, true],
    ['a QCOW2 file that goes over as it is', ['-drive', `file=${FROM},format=qcow2,lazy-refcounts=on`], 3 * MIB, false],
    ['as nodes', ['-blockdev', `driver=raw,node-name=d,file.driver=file,file.filename=${FROM}`], 4 * MIB, true],
    [
      'with more memory than there is',
      ['-object', 'memory-backend-memfd,id=m,size=900G', '-machine', 'q35,memory-backend=m', '-m', '900G', ...DISK],
      4 * MIB,
      true,
    ],
  ])('would start: %s', async (_what, args, sizeBytes, raw) => {
    const definition = await tryOut([...args, '-serial', 'unix:/elsewhere/run.sock,server=on'], {
      raw,
      at: place('vm', sizeBytes),
    });
    expect(JSON.stringify(definition)).toContain(join(dataDir, 'images', 'vm', 'vda.img'));
    expect(JSON.stringify(definition)).not.toContain('/try/');
    expectNothingLeft();
  });

  test('two at once do not meet, and one that an agent has left in the middle is cleared', async () => {
    const left = join(dataDir, 'try', 'vm');
    const { process: qemu, qmp } = await startGuestProcess(COMMAND, left, { ...AS_OWN, purpose: 'try' });
    expect(await qmp.execute('query-status')).toMatchObject({ running: false, status: 'prelaunch' });
    qmp.close();
    await Promise.all([tryOut(DISK), tryOut(DISK, { at: place('other') }), tryOut(DISK, { at: place('vm-2') })]);
    expect(isAlive(qemu)).toBe(false);
    expectNothingLeft();
    const again = await startGuestProcess(COMMAND, left, { ...AS_OWN, purpose: 'try' });
    again.qmp.close();
    await clearRehearsals(join(dataDir, 'try'));
    expect([isAlive(again.process), existsSync(join(dataDir, 'try'))]).toEqual([false, false]);
  });

  test('its QEMU is killed as it is tried: said as that, and not as a refusal', async () => {
    const programs = join(guests, 'programs');
    mkdirSync(programs, { recursive: true });
    const script = '#!/bin/sh\ncase "$*" in *try*) kill -9 $$ ;; esac\nexec /usr/bin/qemu-system-x86_64 "$@"\n';
    writeFileSync(join(programs, 'qemu-system-x86_64'), script, { mode: 0o755 });
    await expect(tryOut(DISK, { at: place('vm', MIB, programs) })).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    expectNothingLeft();
  });
});
