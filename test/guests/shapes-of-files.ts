/** Entries of the table of guests: files beside its disks, and paths that hold for one host or one folder only. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type GuestShape, ide, moved, movedOrRefused, pc, q35, refused, type ShapePlaces } from './shape';

const QCOW2 = 'disk.img.qcow2';
const seed = ({ folder }: ShapePlaces): string => join(folder, 'seed.iso');
const golden = ({ common }: ShapePlaces): string => join(common, 'golden.img');
const code = ({ common }: ShapePlaces): string => join(common, 'code.fd');
const vars = ({ folder }: ShapePlaces): string => join(folder, 'web_VARS.fd');
const withIso = (at: ShapePlaces, more = ''): string[] =>
  pc(...ide(at.disk), '-drive', `file=${seed(at)},format=raw,if=ide,index=2,media=cdrom,id=cd${more}`);

function makeSeed(at: ShapePlaces): void {
  writeFileSync(seed(at), Buffer.alloc(300 * 2048, 'seed'));
}

/** A firmware that boots our guests, in flash, and a store of variables behind it. */
function makeFirmware(size: number): (at: ShapePlaces) => void {
  return (at) => {
    execFileSync('cp', ['/usr/share/seabios/bios-256k.bin', code(at)]);
    writeFileSync(vars(at), Buffer.alloc(size, 'variables'));
  };
}

const flashed = (at: ShapePlaces): string[] =>
  q35(
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${code(at)}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${vars(at)}`, ...ide(at.disk)],
  );

function makeGolden(at: ShapePlaces): void {
  writeFileSync(golden(at), Buffer.alloc(1024 * 1024, 'golden'));
  writeFileSync(join(at.common, 'other.img'), Buffer.alloc(1024 * 1024, 'other'));
}

const relative = (...command: readonly string[]): Pick<GuestShape, 'field' | 'begun' | 'command' | 'expected'> => ({
  ...{ field: 20, begun: 'adopted', expected: moved },
  command: () => command,
});

export const FILE_SHAPES: readonly GuestShape[] = [
  {
    name: 'UEFI variables beside its firmware',
    ...{ field: 4, make: makeFirmware(131_072), command: flashed, expected: moved },
  },
  {
    name: 'UEFI variables of 528 KiB',
    ...{ field: 4, make: makeFirmware(540_672), command: flashed, expected: moved },
  },
  {
    name: 'a stopped guest with UEFI variables',
    ...{ field: 4, begun: 'stopped', make: makeFirmware(131_072), command: flashed, expected: moved },
  },
  {
    name: 'stopped, its ISO not at the destination',
    ...{ field: 5, quick: true, begun: 'stopped', make: makeSeed, expected: movedOrRefused(/seed\.iso/) },
    command: (at) => withIso(at),
  },
  {
    name: 'stopped, and its machine means another at the destination',
    ...{ field: 5, begun: 'stopped', expected: moved },
    command: ({ disk }) => q35(...ide(disk)),
    there: (b) =>
      b.beforeQemu(
        'args=("$@"); for i in "${!args[@]}"; do [ "${args[$i]}" != q35 ] || args[$i]=pc-q35-8.0; done; set -- "${args[@]}"',
      ),
    arrived: ({ guest }) =>
      guest?.command.some((word) => /^pc-q35-\d/.test(word)) ? undefined : 'its machine is not named by version',
  },
  {
    name: 'an ISO that only the source has',
    ...{ field: 23, quick: true, make: makeSeed, expected: movedOrRefused(/seed\.iso/) },
    command: (at) => withIso(at),
  },
  {
    name: 'an ISO that was deleted since its start',
    ...{ field: 23, make: makeSeed, expected: movedOrRefused(/seed\.iso.*(eject|delet|gone)|eject/) },
    command: (at) => withIso(at),
    here: (_, at) => rmSync(seed(at)),
  },
  {
    name: 'an ISO that was ejected since its start',
    ...{ field: 23, make: makeSeed, expected: moved },
    command: (at) => withIso(at),
    said: () => [['eject', { device: 'cd', force: true }]],
  },
  {
    name: 'an ISO that both have',
    field: 23,
    make: ({ common }) => writeFileSync(join(common, 'seed.iso'), Buffer.alloc(2048 * 100, 'seed')),
    command: ({ disk, common }) => pc(...ide(disk), '-cdrom', join(common, 'seed.iso')),
    expected: moved,
  },
  {
    name: 'an empty CD drive',
    ...{ field: 23, expected: moved },
    command: ({ disk }) => pc(...ide(disk), '-drive', 'if=none,id=cd', '-device', 'ide-cd,drive=cd,bus=ide.1'),
  },
  {
    name: 'a read-only drive that is another at the destination',
    ...{ field: 27, make: makeGolden, expected: refused(/golden\.img/) },
    command: (at) => pc(...ide(at.disk), '-drive', `file=${golden(at)},format=raw,if=virtio,readonly=on`),
    there: (b, at) => b.bind(join(at.common, 'other.img'), golden(at)),
  },
  {
    name: 'a read-only drive that both have',
    ...{ field: 27, make: makeGolden, expected: moved },
    command: (at) => pc(...ide(at.disk), '-drive', `file=${golden(at)},format=raw,if=virtio,readonly=on`),
  },
  {
    name: 'a stopped guest’s read-only drive is another at the destination',
    ...{ field: 27, begun: 'stopped', make: makeGolden, expected: refused(/golden\.img/) },
    command: (at) => pc(...ide(at.disk), '-drive', `file=${golden(at)},format=raw,if=virtio,readonly=on`),
    there: (b, at) => b.bind(join(at.common, 'other.img'), golden(at)),
  },
  { name: 'a relative path', ...relative(...pc(...ide('disk.img'))) },
  { name: 'a positional image', ...relative(...pc('disk.img')), expected: movedOrRefused(/format|absolute/) },
  {
    name: 'a relative path of qcow2',
    ...relative(...pc('-drive', `file=${QCOW2},format=qcow2,if=ide`)),
    make: ({ disk }) => execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk, `${disk}.qcow2`]),
  },
  {
    name: 'options with two dashes',
    ...{ field: 20, expected: moved },
    command: ({ disk }) => [
      ...['qemu-system-x86_64', '--accel', 'tcg', '--machine', 'q35', '-m', '64', '--display', 'none', '-vga', 'none'],
      ...['-nic', 'none', '--drive', `file=${disk},format=raw,if=ide`],
    ],
  },
  {
    name: 'a monitor by a relative path, and a disk elsewhere',
    ...{ field: 20, begun: 'adopted', expected: moved },
    make: ({ disk, folder }) => {
      mkdirSync(join(folder, 'disks'));
      renameSync(disk, join(folder, 'disks', 'd.img'));
    },
    command: () => pc(...ide('disks/../disks/d.img')),
    monitor: () => 'a.qmp',
  },
  {
    name: 'defined with a relative path',
    ...{ field: 20, expected: movedOrRefused(/absolute/) },
    command: () => pc(...ide('disk.img')),
  },
  {
    name: 'memory in a file',
    ...{ field: 24, expected: movedOrRefused(/memory-backend-file|web\.ram/) },
    command: ({ disk, folder }) =>
      pc(
        ...['-object', `memory-backend-file,id=m0,size=64M,mem-path=${folder}/web.ram,share=on`],
        ...['-machine', 'memory-backend=m0', ...ide(disk)],
      ),
  },
  {
    name: 'memory in a file, adopted, both hosts on one file system',
    ...{ field: 24, begun: 'adopted', expected: movedOrRefused(/memory-backend-file|web\.ram/) },
    make: ({ folder }) => {
      writeFileSync(join(folder, 'web.ram'), '');
      truncateSync(join(folder, 'web.ram'), 64 * 1024 * 1024);
    },
    command: ({ disk, folder }) =>
      pc(
        ...['-object', `memory-backend-file,id=m0,size=64M,mem-path=${folder}/web.ram,share=on`],
        ...['-machine', 'memory-backend=m0', ...ide(disk)],
      ),
    there: (b, { folder }) => b.share(join(folder, '..')),
  },
  {
    name: '-mem-path',
    ...{ field: 24, expected: movedOrRefused(/mem-path/) },
    command: ({ disk, folder }) => pc('-mem-path', folder, ...ide(disk)),
  },
  {
    name: '-readconfig',
    ...{ field: 31, expected: movedOrRefused(/readconfig/) },
    make: ({ folder, disk }) =>
      writeFileSync(join(folder, 'vm.cfg'), `[drive "d0"]\n  file = "${disk}"\n  format = "raw"\n  if = "ide"\n`),
    command: ({ folder }) => pc('-readconfig', join(folder, 'vm.cfg')),
  },
  {
    name: '-readconfig, adopted',
    ...{ field: 31, begun: 'adopted', expected: movedOrRefused(/readconfig/) },
    make: ({ folder, disk }) =>
      writeFileSync(join(folder, 'vm.cfg'), `[drive "d0"]\n  file = "${disk}"\n  format = "raw"\n  if = "ide"\n`),
    command: ({ folder }) => pc('-readconfig', join(folder, 'vm.cfg')),
  },
  {
    name: 'a disk by a set of descriptors',
    ...{ field: 31, begun: 'adopted', expected: movedOrRefused(/add-fd|fdset/) },
    through: ({ disk }) => ['sh', '-c', `exec "$@" 3<>${disk} 4<${disk}`, 'sh'],
    command: () => pc('-add-fd', 'fd=3,set=2', '-add-fd', 'fd=4,set=2', ...ide('/dev/fdset/2')),
  },
  {
    name: 'a vsock',
    ...{ field: 31, expected: movedOrRefused(/vhost-vsock/) },
    command: ({ disk }) => pc(...ide(disk), '-device', 'vhost-vsock-pci,guest-cid=7'),
  },
  {
    name: 'a folder of its host',
    ...{ field: 10, expected: refused(/virtfs|fsdev/) },
    command: ({ disk, folder }) => pc(...ide(disk), '-virtfs', `local,path=${folder},mount_tag=t,security_model=none`),
  },
];
