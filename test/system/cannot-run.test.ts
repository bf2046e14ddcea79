/**
 * A guest that its destination cannot run: refused with QEMU's own words before any of it has been sent, and never paused where it runs.
 * The destination's QEMU is the real one behind a script, which makes it another host's.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { temporaryFolder } from '../helpers/data';
import { ask, countingCommand, expectCounting, isRunning, startGuestOn } from '../helpers/guest-lab';
import { sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;

describeWhere([needsQemu(), needsAssembler()])('a guest that cannot run there', () => {
  let guest: CountingGuest;
  const programs = join(temporaryFolder(), 'programs');
  const shared = sharedLab({ own: true, bArgs: ['--qemu-folder', programs] });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 200 })));

  /** @param does what the script does where a QEMU is to wait for a guest, or is only tried */
  function destinationQemu(does: string): void {
    const real = execFileSync('sh', ['-c', 'command -v qemu-system-x86_64'], { encoding: 'utf8' }).trim();
    mkdirSync(programs, { recursive: true });
    const program = join(programs, 'qemu-system-x86_64');
    writeFileSync(program, `#!/bin/sh\ncase "$*" in *-incoming* | *" -S") ${does} ;; esac\nexec ${real} "$@"\n`);
    chmodSync(program, 0o755);
  }

  test.each([
    [
      'does not start',
      `echo 'qemu-system-x86_64: -nic tap: could not configure /dev/net/tun (tap7): Device or resource busy' >&2; exit 1`,
      'could not configure /dev/net/tun (tap7): Device or resource busy',
    ],
    ['has another processor', 'set -- "$@" -cpu qemu64,-pni', 'its processor has pni, and would not here'],
    ['has other memory', 'set -- "$@" -m 80', 'Size mismatch: pc.ram'],
  ])('its QEMU %s: refused with its words, 0 bytes sent, not paused once', async (what, incoming, words) => {
    destinationQemu(incoming);
    const lab = await shared();
    const vmId = what.replaceAll(' ', '-');
    await startGuestOn(lab, vmId, guest);
    for (const enableDwcp of [true, false]) {
      const stops: string[] = [];
      const counted = await ask(lab.a, vmId, async (qmp) => {
        const stop = qmp.onEvent(({ name }) => stops.push(name));
        const failed = await lab.result(await lab.migrate(vmId, { enableDwcp })).then(
          () => undefined,
          (error: unknown) => error,
        );
        stop();
        return failed;
      });
      expect(String(counted)).toContain(words);
      expect(counted).toMatchObject({ code: 'GUEST_REFUSED' });
      expect(stops.filter((name) => name === 'STOP')).toEqual([]);
      expect(await isRunning(lab.a, vmId)).toBe(true);
      const [held] = execFileSync('du', ['-s', '-B1', lab.b.dataDir], { encoding: 'utf8' }).split('\t');
      expect(Number(held)).toBeLessThan((PAGES * 4096) / 4);
    }
    await expectCounting(lab.a, vmId, PAGES, 2);
    await lab.untilClean();
  });

  test('it is stopped, and its QEMU does not start: refused with its words, 0 bytes sent; forced it moves', async () => {
    destinationQemu(
      'echo "qemu-system-x86_64: -accel kvm: failed to initialize kvm: No such file or directory" >&2; exit 1',
    );
    const lab = await shared();
    const folder = lab.vmFolder('still');
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    copyFileSync(guest.image, disk);
    const registry = new VmRegistry(lab.a.dataDir);
    await registry.put({
      ...{ vmId: 'still', presence: 'here', generation: 0 },
      images: [{ imageId: 'vda', kind: 'disk', path: disk }],
      guest: { command: countingCommand(disk), qmpPath: join(folder, 'qmp') },
    });
    await expect(lab.result(await lab.migrate('still'))).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringContaining('failed to initialize kvm: No such file or directory') as string,
    });
    expect(existsSync(join(lab.b.dataDir, 'images', 'still'))).toBe(false);
    expect((await registry.get('still')).presence).toBe('here');
    expect(await lab.result(await lab.migrate('still', { force: true }))).toMatchObject({ outcome: 'completed' });
    await lab.untilClean();
  });

  test('another program holds its disk: found before the point of no return, and the guest runs on; then it moves', async () => {
    destinationQemu(':');
    const lab = await shared();
    await startGuestOn(lab, 'held', guest);
    const disk = join(lab.b.dataDir, 'images', 'held', 'vda.img');
    const migrationId = await lab.migrate('held');
    await until(() => existsSync(disk), { everyMs: 2, withinMs: 60_000 });
    const holder = spawn('qemu-nbd', ['-k', join(lab.folder, 'nbd'), '-t', '-f', 'raw', disk], { stdio: 'inherit' });
    const ended = new Promise((resolve) => holder.once('close', resolve));
    await expect(lab.result(migrationId)).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(/holds a disk.*lock/) as string,
    });
    expect([await isRunning(lab.a, 'held'), existsSync(disk)]).toEqual([true, false]);
    holder.kill();
    await ended;
    expect(await lab.result(await lab.migrate('held'))).toMatchObject({ guest: { responds: true } });
    await expectCounting(lab.b, 'held', PAGES, 2);
    await lab.untilClean();
  });

  test('its QEMU is killed as it starts: another is started, and the guest moves', async () => {
    const once = join(programs, 'once');
    destinationQemu(`[ -e ${once} ] || { touch ${once}; kill -9 $$; }`);
    const lab = await shared();
    await startGuestOn(lab, 'killed', guest);
    expect(await lab.result(await lab.migrate('killed'))).toMatchObject({ guest: { responds: true } });
    await expectCounting(lab.b, 'killed', PAGES, 2);
    await lab.untilClean();
  });
});
