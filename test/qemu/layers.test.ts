/** A running guest whose disk gets another layer: what it writes from then on is nowhere that a move would look. */
import { copyFileSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, countingCommand, rememberFolder } from '../helpers/guest-lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

describeWhere([needsQemu(), needsAssembler()])('a guest that a snapshot puts on another layer', () => {
  async function started() {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const [run, path, layer] = [join(folder, 'run'), join(folder, 'disk.img'), join(folder, 'layer.qcow2')];
    mkdirSync(run);
    copyFileSync(buildCountingGuest(512, {}).image, path);
    const command = countingCommand(path);
    const { qmp, places } = await startGuestProcess(command, run, AS_OWN);
    qmp.close();
    const driver = new HostDriver(() => run, AS_OWN.policy);
    const snapshot = async (): Promise<void> => {
      const monitor = await QmpClient.connect(runPlaces(run).monitorPath);
      await monitor.execute('transaction', {
        actions: [
          { type: 'blockdev-snapshot-sync', data: { device: 'ide0-hd0', 'snapshot-file': layer, format: 'qcow2' } },
        ],
      });
      monitor.close();
    };
    const imageAt = (at: string) => ({ imageId: 'vda', kind: 'disk' as const, path: at, sizeBytes: statSync(at).size });
    const definition = { command, qmpPath: places.qmpPath };
    return { driver, definition, snapshot, path, layer, imageAt, folder };
  }

  it('before its move is refused in one line that names the layer, whichever file its record names', async () => {
    const { driver, definition, snapshot, path, layer, imageAt } = await started();
    await expect(driver.inspectGuest('vm', definition, [imageAt(path)], false)).resolves.toBeDefined();
    await snapshot();
    for (const [image, force] of [
      [imageAt(path), false],
      [imageAt(layer), false],
      [imageAt(layer), true],
    ] as const)
      await expect(driver.inspectGuest('vm', definition, [image], force)).rejects.toMatchObject({
        code: 'GUEST_REFUSED',
        message: expect.stringMatching(new RegExp(`${layer}.*snapshot.*block-commit`)) as string,
      });
  }, 60_000);

  it('while its disks are on their way is noticed in the next round, and nothing of ours stays in QEMU', async () => {
    const { driver, definition, snapshot, path, imageAt } = await started();
    const port = await driver.connectGuest('vm', definition, async (letRunOn) => {
      await letRunOn();
      return true;
    });
    const disk = (await port.watchDisks([imageAt(path)])).get('vda')!;
    await disk.nextRound();
    await snapshot();
    await expect(disk.nextRound()).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
    await port.runOn();
    port.close();
    const monitor = await QmpClient.connect(definition.qmpPath);
    const bitmaps = (await monitor.execute('query-named-block-nodes', { flat: true })).flatMap(
      (node) => node['dirty-bitmaps'] ?? [],
    );
    monitor.close();
    expect(bitmaps).toEqual([]);
  }, 60_000);
});
