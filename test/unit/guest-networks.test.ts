/** What hooks are told of a guest's network cards. */
import { networksOf } from '../../src/hypervisor/qemu/guest-networks';

const command = (text: string): string[] => `qemu-system-x86_64 ${text}`.split(' ');

it.each([
  [
    'a card on a tap and one on a bridge',
    '-netdev tap,id=n0,ifname=tap7,script=no,downscript=no -device virtio-net-pci,netdev=n0,id=nic0,mac=52:54:00:AA:00:01 ' +
      '-netdev bridge,id=n1,br=br-web -device e1000,netdev=n1',
    [
      {
        kind: 'tap',
        interface: 'tap7',
        netdev: 'n0',
        model: 'virtio-net-pci',
        device: 'nic0',
        mac: '52:54:00:aa:00:01',
      },
      { kind: 'bridge', bridge: 'br-web', netdev: 'n1', model: 'e1000' },
    ],
  ],
  ['cards of -nic', '-nic none', []],
  [
    'the short form',
    '-nic user,model=e1000,mac=52:54:00:aa:00:02',
    [{ kind: 'user', model: 'e1000', mac: '52:54:00:aa:00:02' }],
  ],
  ['the usual bridge', '-nic bridge', [{ kind: 'bridge', bridge: 'br0' }]],
])('of a command: %s', (_what, text, networks) => {
  expect(networksOf(command(text))).toEqual(networks);
});

it('of a machine that runs, its own addresses count, and each card finds its other end', () => {
  const devices = [
    { type: 'virtio-net-pci', at: 'x', id: 'nic0', mac: '52:54:00:12:34:57', netdev: 'n0' },
    { type: 'virtio-rng-pci', at: 'z' },
  ];
  const cards = [{ type: 'e1000', at: 'y', mac: '52:54:00:12:34:56', netdev: '#net001' }];
  expect(
    networksOf(command('-nic tap,ifname=tap1 -netdev bridge,id=n0,br=br1 -device virtio-net-pci,netdev=n0,id=nic0'), {
      devices,
      cards,
    }),
  ).toEqual([
    { kind: 'bridge', bridge: 'br1', netdev: 'n0', model: 'virtio-net-pci', device: 'nic0', mac: '52:54:00:12:34:57' },
    { kind: 'tap', interface: 'tap1', netdev: '#net001', model: 'e1000', mac: '52:54:00:12:34:56' },
  ]);
});
