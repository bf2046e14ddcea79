/** A command made what runs: on real machines that is test/qemu/hardware.test.ts; here is what no guest without a driver lets go. */
import { asItRuns } from '../../src/hypervisor/qemu/as-it-runs';
import { parseBackends } from '../../src/hypervisor/qemu/plugged-backends';
import type { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import type { GuestDevice } from '../../src/model/guest-hardware';

/** A QEMU that has no processors of a name, and these networks. */
function monitor(networks = ''): QmpClient {
  const answers: Readonly<Record<string, unknown>> = {
    'query-cpus-fast': [{ 'cpu-index': 0, 'qom-path': '/machine/unattached/device[0]', props: {} }],
    'human-monitor-command': networks,
    'device-list-properties': [{ name: 'vectors', type: 'uint32', 'default-value': 3 }],
    'qom-get': 3,
  };
  return { execute: (name: string) => Promise.resolve(answers[name]) } as unknown as QmpClient;
}

const command = (text: string): string[] => `qemu-system-x86_64 ${text}`.split(' ');
const rng: GuestDevice = { id: 'rng', type: 'virtio-rng-pci', at: '/machine/i440fx/pci.0:24' };
const balloon: GuestDevice = { id: 'b', type: 'virtio-balloon-pci', at: '/machine/i440fx/pci.0:40' };
const cd: GuestDevice = { id: 'cd', type: 'scsi-cd', at: '/machine/peripheral/s/s.0:0:1' };

const MADE =
  '-device virtio-rng-pci,id=rng -device e1000,netdev=n0,id=nic0 -device virtio-balloon-pci,id=b -device scsi-cd,id=cd -vga none';

it('what is as its command made it stays as it is written', async () => {
  const devices = [rng, balloon, cd, { id: 'nic0', type: 'e1000', at: '/machine/i440fx/pci.0:32' }];
  expect((await asItRuns(monitor(), command(MADE), devices)).command).toEqual(command(MADE));
});

it('without one that was unplugged the others are named at their places, by which none moves up', async () => {
  expect((await asItRuns(monitor(), command(MADE), [rng, balloon, cd])).command).toEqual(
    command(
      '-device virtio-rng-pci,id=rng,bus=pci.0,addr=0x3.0x0 -device virtio-balloon-pci,id=b,bus=pci.0,addr=0x5.0x0 ' +
        '-device scsi-cd,id=cd -vga none',
    ),
  );
});

it('also where it is written as JSON, and a place that is said is left as it is', async () => {
  const given = [
    ...['qemu-system-x86_64', '-device', '{"driver":"virtio-rng-pci","id":"rng"}'],
    ...['-device', 'virtio-balloon-pci,id=b,addr=5', '-device', 'usb-kbd,id=gone'],
  ];
  expect((await asItRuns(monitor(), given, [rng, balloon])).command).toEqual([
    ...['qemu-system-x86_64', '-device', '{"driver":"virtio-rng-pci","id":"rng","bus":"pci.0","addr":"0x3.0x0"}'],
    ...['-device', 'virtio-balloon-pci,id=b,addr=5'],
  ]);
});

it('a card that was plugged in comes with its network; one whose network cannot be told is left out', async () => {
  const card = (id: string, netdev: string): GuestDevice => ({
    ...{ id, netdev, type: 'e1000', at: '/machine/i440fx/pci.0:48', mac: '52:54:00:aa:00:01' },
  });
  const networks = ' \\ n1: index=0,type=tap,ifname=tap7,script=no,downscript=no\n \\ n2: index=0,type=tap,fd=14\n';
  const { command: made, devices } = await asItRuns(monitor(networks), command('-vga none'), [
    card('c1', 'n1'),
    card('c2', 'n2'),
  ]);
  expect(made).toEqual(
    command(
      '-vga none -netdev tap,id=n1,ifname=tap7,script=no,downscript=no ' +
        '-device e1000,id=c1,netdev=n1,mac=52:54:00:aa:00:01,bus=pci.0,addr=0x6.0x0',
    ),
  );
  expect(devices.map(({ settings }) => settings)).toEqual([{ vectors: '3' }, undefined]);
});

it.each([
  ['n1: index=0,type=user,net=10.0.2.0,restrict=off', 'user,id=n1'],
  ['n1: index=0,type=user,net=10.0.2.0,restrict=on', 'user,id=n1,restrict=on'],
  ['n1: index=0,type=user,net=192.168.1.0,restrict=off', undefined],
  ['n1: index=0,type=tap,helper=/usr/lib/qemu/qemu-bridge-helper,br=br-web', 'bridge,id=n1,br=br-web'],
  ['n1: index=0,type=tap,ifname=tap7,script=/etc/qemu-ifup,downscript=no', undefined],
  ['n1: index=0,type=tap,ifname=tap 7,script=no,downscript=no', undefined],
  ['n1: index=0,type=tap,fd=7', undefined],
  ['n1: index=0,type=vhost-user,fd=7', undefined],
  [
    'n1: index=0,type=tap,ifname=t,script=no,downscript=no\n \\ n1: index=1,type=tap,ifname=t,script=no,downscript=no',
    undefined,
  ],
])('the network %s', (line, option) => {
  expect(
    parseBackends(`nic1: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n \\ ${line}\r\n`).get('n1'),
  ).toBe(option);
});
