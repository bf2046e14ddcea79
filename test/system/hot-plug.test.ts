/**
 * Guests whose machine is not what their command made: cards and processors plugged in, devices unplugged while they ran. They move there and
 * back with what they have now; what only their destination could say of a set-up is test/qemu/hardware.test.ts's.
 */
import type { QmpCommand } from '../../src/hypervisor/qemu/qmp-schemas';
import { hardwareOf } from '../../src/hypervisor/qemu/running-hardware';
import { VmRegistry } from '../../src/store/vm-registry';
import { ask, countingCommand, expectCounting, startCommandOn } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 64;
const MORE = [
  ...['-smp', '1,maxcpus=2,sockets=2', '-device', 'pcie-root-port,id=rp1,chassis=1'],
  ...['-device', 'qemu-xhci,id=usb', '-device', 'usb-tablet,id=tablet', '-device', 'virtio-rng-pci,id=rng'],
];
const SAID: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
  ['netdev_add', { type: 'user', id: 'n1' }],
  ['device_add', { driver: 'virtio-net-pci', netdev: 'n1', id: 'nic1', bus: 'rp1', mac: '52:54:00:aa:00:07' }],
  ['device_add', { driver: 'qemu64-x86_64-cpu', 'socket-id': 1, 'core-id': 0, 'thread-id': 0, id: 'cpu1' }],
  ['device_del', { id: 'tablet' }],
];

describeWhere([needsQemu(), needsAssembler()])('a guest that was plugged about in', () => {
  let guest: CountingGuest;
  const shared = sharedLab({ own: true });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 200 })));

  async function start(lab: Lab, vmId: string): Promise<void> {
    const commandOf = (disk: string): string[] => [...countingCommand(disk), ...MORE];
    await startCommandOn(lab, vmId, guest.image, commandOf, async (qmp) => {
      const gone = qmp.event('', ({ name }) => name === 'DEVICE_DELETED', 20_000);
      for (const [said, parameters] of SAID) await qmp.execute(said as QmpCommand, parameters).catch(unlessUnknown);
      await gone;
    });
  }

  const machineOf = (host: LabHost, vmId: string) =>
    ask(host, vmId, async (qmp) => {
      const { devices, ...machine } = await hardwareOf(qmp);
      return { ...machine, devices: devices.map((device) => JSON.stringify(device)).sort() };
    });

  test.each([true, false])(
    'it goes there and back with all that it has now, by DWCP or not: %s',
    async (enableDwcp) => {
      const lab = await shared();
      const vmId = `plugged-${String(enableDwcp)}`;
      await start(lab, vmId);
      const before = await machineOf(lab.a, vmId);
      expect(before.processors).toHaveLength(2);
      expect(before.devices.join()).toContain('52:54:00:aa:00:07');
      expect(before.devices.join()).not.toContain('tablet');
      for (const [from, to] of [
        [lab.a, lab.b],
        [lab.b, lab.a],
      ] as const) {
        const id = await lab.orchestrator.migrateVm(vmId, from.hostId, to.hostId, { enableDwcp });
        expect(await lab.result(id)).toMatchObject({ guest: { responds: true } });
        await expectCounting(to, vmId, PAGES, 1);
        expect(await machineOf(to, vmId)).toEqual(before);
      }
      const { guest: definition } = await new VmRegistry(lab.a.dataDir).get(vmId);
      expect(definition?.command.join(' ')).toContain('id=nic1');
      await lab.untilClean();
    },
  );
});

/** The driver never says these: what they answer is not looked at. */
function unlessUnknown(error: unknown): void {
  if (!String(error).includes('malformed') && !(error instanceof TypeError)) throw error;
}
