/** Entries of the table of guests: the machine itself. Processor, memory, devices, and what was plugged in or out since its start. */
import { copyFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { MIB } from '../../src/model/units';
import { LINUX } from './linux';
import { type GuestShape, ide, moved, movedOrRefused, pc, q35, refused, type Said, type ShapePlaces } from './shape';

const virtio = (disk: string): string[] => ['-drive', `file=${disk},format=raw,if=virtio`];
/** Of its first processor model, in front of the destination's QEMU. */
const otherProcessor = (from: string, to: string): string =>
  `args=("$@"); for i in "\${!args[@]}"; do [ "\${args[$i]}" != ${from} ] || args[$i]=${to}; done; set -- "\${args[@]}"`;

const plugsNic: Said = [
  ['netdev_add', { type: 'user', id: 'n1' }],
  ['device_add', { driver: 'virtio-net-pci', netdev: 'n1', id: 'nic1' }],
];
const plugsDimm: Said = [
  ['object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 * MIB }],
  ['device_add', { driver: 'pc-dimm', memdev: 'm1', id: 'd1' }],
];
const plugsProcessor: Said = [
  ['device_add', { driver: 'qemu64-x86_64-cpu', 'socket-id': 1, 'core-id': 0, 'thread-id': 0, id: 'cpu1' }],
];

function linuxOn({ linux, disk, folder }: ShapePlaces): string[] {
  const { memoryMiB, randomMiB, dirtyKiBPerTick, diskKiBPerSecond } = LINUX;
  const append = `console=ttyS0 quiet panic=1 guest.random=${randomMiB} guest.dirty=${dirtyKiBPerTick} guest.disk=${diskKiBPerSecond}`;
  return [
    ...['qemu-system-x86_64', '-accel', 'tcg', '-M', 'q35', '-cpu', 'qemu64', '-m', String(memoryMiB)],
    ...['-display', 'none', '-vga', 'none', '-nic', 'none', '-serial', `file:${join(folder, 'serial')}`],
    ...['-kernel', join(linux, 'vmlinuz'), '-initrd', join(linux, 'initrd'), '-append', append, ...virtio(disk)],
  ];
}

const KVM = '/dev/kvm';
const withoutKvm = {
  there: (b) => {
    if (existsSync(KVM)) b.bind('/dev/null', KVM);
  },
  expected: refused(/kvm/i),
} satisfies Pick<GuestShape, 'there' | 'expected'>;

export const MACHINE_SHAPES: readonly GuestShape[] = [
  { name: 'a small Linux that writes to its disk', field: 0, guest: 'linux', command: linuxOn, expected: moved },
  {
    name: 'all that a pc has by itself',
    ...{ field: 0, expected: moved },
    command: ({ disk }) => ['qemu-system-x86_64', '-accel', 'tcg', '-m', '64', '-display', 'none', ...ide(disk)],
  },
  {
    name: 'two NICs, two processors, USB, sound',
    ...{ field: 0, expected: moved },
    command: ({ disk }) =>
      pc(
        ...['-smp', '2', '-usb', '-device', 'usb-tablet', '-nic', 'user', '-nic', 'user,model=virtio-net-pci'],
        ...['-audiodev', 'none,id=a', '-device', 'intel-hda', '-device', 'hda-duplex,audiodev=a', ...ide(disk)],
      ),
  },
  {
    name: 'virtio-scsi behind a root port, an iothread, a balloon, an agent’s port',
    ...{ field: 0, expected: moved },
    command: ({ disk }) =>
      q35(
        ...[
          '-device',
          'pcie-root-port,id=rp',
          '-object',
          'iothread,id=io',
          '-device',
          'virtio-scsi-pci,id=s,bus=rp,iothread=io',
        ],
        ...[
          '-drive',
          `file=${disk},format=raw,if=none,id=d`,
          '-device',
          'scsi-hd,drive=d,bus=s.0',
          '-device',
          'virtio-balloon',
        ],
        ...['-device', 'virtio-serial', '-chardev', 'null,id=c', '-device', 'virtserialport,chardev=c,name=agent'],
      ),
  },
  {
    name: 'NVMe, and a disk on USB',
    field: 0,
    command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=none,id=d`, '-device', 'nvme,drive=d,serial=s'),
    expected: movedOrRefused(/nvme/i),
  },
  {
    name: 'memory in two nodes of a memfd',
    ...{ field: 24, expected: moved },
    command: ({ disk }) =>
      q35(
        ...[
          '-object',
          'memory-backend-memfd,id=n0,size=32M,share=on',
          '-object',
          'memory-backend-memfd,id=n1,size=32M',
        ],
        ...['-numa', 'node,memdev=n0', '-numa', 'node,memdev=n1', ...ide(disk)],
      ),
  },
  {
    name: 'an inflated balloon',
    ...{ field: 0, expected: moved },
    command: ({ disk }) => pc('-device', 'virtio-balloon', ...ide(disk)),
    said: () => [['balloon', { value: 48 * MIB }]],
  },
  {
    name: 'a processor that lacks features at the destination',
    ...{ field: 11, expected: refused(/avx2/) },
    command: ({ disk }) => pc('-cpu', 'max', ...ide(disk)),
    there: (b) => b.beforeQemu(otherProcessor('max', 'max,-avx2')),
  },
  {
    name: 'a processor of more features at the destination',
    ...{ field: 11, expected: refused(/avx2/) },
    command: ({ disk }) => pc('-cpu', 'max,-avx2', ...ide(disk)),
    there: (b) => b.beforeQemu(otherProcessor('max,-avx2', 'max')),
  },
  {
    name: 'a model that both have',
    ...{ field: 11, expected: moved },
    command: ({ disk }) => pc('-cpu', 'Nehalem', ...ide(disk)),
  },
  ...(
    [
      ['-accel kvm', ['-accel', 'kvm']],
      ['-enable-kvm and -cpu host', ['-enable-kvm', '-cpu', 'host']],
      ['-machine accel=kvm', ['-machine', 'q35,accel=kvm']],
    ] as const
  ).flatMap(([name, words]): GuestShape[] => {
    const command = ({ disk, folder }: ShapePlaces): string[] => [
      ...['qemu-system-x86_64', ...words, '-m', '64', '-display', 'none', '-vga', 'none', '-nic', 'none'],
      ...['-serial', `file:${join(folder, 'serial')}`, ...ide(disk)],
    ];
    const kvm = { field: 11, guest: 'keys', command } as const;
    return [
      { name: `stopped, ${name}, and no KVM at the destination`, ...kvm, begun: 'stopped', ...withoutKvm },
      { name: `${name}, and no KVM at the destination`, ...kvm, ...withoutKvm, needs: KVM },
      { name: `${name} at both`, ...kvm, needs: KVM, expected: moved },
    ];
  }),
  {
    name: 'a QEMU that does not start at the destination',
    ...{ field: 0, quick: true, expected: refused(/out of file descriptors/) },
    command: ({ disk }) => pc(...ide(disk)),
    there: (b) =>
      b.beforeQemu('case "$*" in *-incoming*) echo "qemu-system-x86_64: out of file descriptors" >&2; exit 1;; esac'),
  },
  {
    name: 'a NIC plugged in',
    ...{ field: 8, said: () => plugsNic, expected: movedOrRefused(/nic1/) },
    command: ({ disk }) => pc(...ide(disk)),
  },
  {
    name: 'a disk plugged in',
    ...{ field: 8, expected: movedOrRefused(/plugged\.img|plugged/) },
    make: ({ disk, folder }) => copyFileSync(disk, join(folder, 'plugged.img')),
    command: ({ disk }) => pc(...ide(disk)),
    said: ({ folder }) => [
      [
        'blockdev-add',
        { driver: 'raw', 'node-name': 'p', file: { driver: 'file', filename: `${folder}/plugged.img` } },
      ],
      ['device_add', { driver: 'virtio-blk-pci', drive: 'p', id: 'plugged' }],
    ],
  },
  {
    name: 'a DIMM plugged in',
    ...{ field: 8, said: () => plugsDimm, expected: movedOrRefused(/d1/) },
    command: ({ disk }) => pc('-m', '64,slots=2,maxmem=256M', ...ide(disk)),
  },
  {
    name: 'a processor plugged in',
    ...{ field: 8, said: () => plugsProcessor, expected: movedOrRefused(/processors|cpu1/) },
    command: ({ disk }) => q35('-smp', '1,maxcpus=2,sockets=2', ...ide(disk)),
  },
  {
    name: 'a USB device unplugged',
    ...{ field: 8, said: () => [['device_del', { id: 'tablet' }]], expected: movedOrRefused(/tablet/) },
    command: ({ disk }) => pc('-usb', '-device', 'usb-tablet,id=tablet', ...ide(disk)),
  },
  {
    name: 'an object made and not used',
    ...{ field: 8, expected: moved },
    command: ({ disk }) => pc(...ide(disk)),
    said: () => [['object-add', { 'qom-type': 'iothread', id: 'io9' }]],
  },
];
