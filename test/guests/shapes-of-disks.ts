/** Entries of the table of guests: how a guest's disks are described, and in what they lie. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, copyFileSync, mkdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { HostBox } from './host-box';
import { type GuestShape, ide, moved, movedOrRefused, pc, q35, refused, type ShapePlaces } from './shape';

const qemuImg = (...args: readonly string[]): unknown => execFileSync('qemu-img', args, { stdio: 'pipe' });
const qcow2 = ({ disk }: ShapePlaces): string => `${disk}.qcow2`;
const json = (value: object): string[] => ['-blockdev', JSON.stringify(value)];

function asQcow2(at: ShapePlaces): void {
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at.disk, qcow2(at));
}

/** Its disk on another one, with clusters of both. */
function onBase(at: ShapePlaces): void {
  const base = join(at.folder, 'base.qcow2');
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at.disk, base);
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', qcow2(at), '8M');
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 3M 128k', qcow2(at)]);
}

function renamed(name: string): (at: ShapePlaces) => void {
  return ({ disk, folder }) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    renameSync(disk, join(folder, name));
  };
}

/** @returns the name of a loop device of its disk, which goes behind the entry */
function onLoop({ disk, folder }: ShapePlaces, source: HostBox): void {
  const loop = execFileSync('losetup', ['--find', '--show', disk], { encoding: 'utf8' }).trim();
  source.behind(() => execFileSync('losetup', ['--detach', loop]));
  writeFileSync(join(folder, 'loop'), loop);
}

const loopOf = ({ folder }: ShapePlaces): string =>
  execFileSync('cat', [join(folder, 'loop')], { encoding: 'utf8' }).trim();
const drive = (at: ShapePlaces, more = ''): string[] => [
  '-drive',
  `file=${qcow2(at)},format=qcow2,if=ide,id=d0${more}`,
];
const layer = ({ folder }: ShapePlaces): string => join(folder, 'layer.qcow2');
const snapshot = (at: ShapePlaces, device: string) =>
  [['blockdev-snapshot-sync', { device, 'snapshot-file': layer(at), format: 'qcow2' }]] as const;

export const DISK_SHAPES: readonly GuestShape[] = [
  { name: 'raw on IDE', field: 0, quick: true, command: ({ disk }) => pc(...ide(disk)), expected: moved },
  {
    name: 'qcow2 on virtio',
    ...{ field: 0, quick: true, make: asQcow2, expected: moved },
    command: (at) => q35('-drive', `file=${qcow2(at)},format=qcow2,if=virtio`),
  },
  {
    name: 'a loop device, as LVM is one',
    ...{ field: 3, make: onLoop, expected: movedOrRefused(/block device/) },
    command: (at) => pc(...ide(loopOf(at))),
  },
  {
    name: 'host_device below raw',
    ...{ field: 3, make: onLoop, expected: movedOrRefused(/host_device|block device/) },
    command: (at) =>
      pc(
        ...['-blockdev', `driver=host_device,filename=${loopOf(at)},node-name=s`],
        ...['-blockdev', 'driver=raw,file=s,node-name=d', '-device', 'ide-hd,drive=d'],
      ),
  },
  {
    name: 'a stopped guest on a loop device',
    ...{ field: 3, begun: 'stopped', make: onLoop, expected: movedOrRefused(/block device/) },
    command: (at) => pc(...ide(loopOf(at))),
  },
  {
    name: 'libvirt’s blockdev, "backing": null',
    ...{ field: 6, quick: true, make: asQcow2, expected: moved },
    command: (at) =>
      pc(
        ...json({ driver: 'file', filename: qcow2(at), 'node-name': 's' }),
        ...json({ driver: 'qcow2', 'node-name': 'f', file: 's', backing: null }),
        ...['-device', 'ide-hd,drive=f'],
      ),
  },
  {
    name: 'libvirt’s blockdev with nodes for its base',
    ...{ field: 6, make: onBase, expected: moved },
    command: (at) =>
      pc(
        ...json({ driver: 'file', filename: join(at.folder, 'base.qcow2'), 'node-name': 'bs', 'read-only': true }),
        ...json({ driver: 'qcow2', 'node-name': 'b', file: 'bs', backing: null, 'read-only': true }),
        ...json({ driver: 'file', filename: qcow2(at), 'node-name': 's' }),
        ...json({ driver: 'qcow2', 'node-name': 'f', file: 's', backing: 'b' }),
        ...['-device', 'ide-hd,drive=f'],
      ),
  },
  ...['discard-no-unref=on', 'l2-cache-entry-size=4096', 'pass-discard-request=on', 'lazy-refcounts=on'].map(
    (option): GuestShape => ({
      name: `an option of qcow2, ${option}`,
      ...{ field: 6, make: asQcow2, expected: moved },
      command: (at) => pc(...drive(at, `,${option}`)),
    }),
  ),
  {
    name: 'a base named in the drive, backing.file.filename',
    ...{ field: 6, make: onBase, expected: movedOrRefused(/backing/) },
    command: (at) => pc(...drive(at, `,backing.driver=qcow2,backing.file.filename=${join(at.folder, 'base.qcow2')}`)),
  },
  {
    name: 'a base that its header names',
    ...{ field: 6, make: onBase, expected: moved },
    command: (at) => pc(...drive(at)),
  },
  {
    name: 'Proxmox’s throttle over qcow2 over file, one inside the other',
    ...{ field: 7, make: asQcow2, expected: movedOrRefused(/throttle/) },
    command: (at) =>
      pc(
        ...['-object', 'throttle-group,id=tg0'],
        ...json({
          ...{ driver: 'throttle', 'throttle-group': 'tg0', 'node-name': 'd0' },
          file: {
            driver: 'qcow2',
            'node-name': 'f0',
            file: { driver: 'file', filename: qcow2(at), 'node-name': 'e0' },
          },
        }),
        ...['-device', 'ide-hd,drive=d0'],
      ),
  },
  {
    name: 'throttled by a drive’s own options',
    ...{ field: 7, expected: moved },
    command: ({ disk }) => pc(...ide(disk, ',throttling.bps-total=50000000,throttling.iops-total=5000')),
  },
  {
    name: 'a raw node of a size over a file',
    ...{ field: 7, expected: movedOrRefused(/size/) },
    command: ({ disk }) =>
      pc(
        ...json({ driver: 'raw', size: 2_097_152, 'node-name': 'd', file: { driver: 'file', filename: disk } }),
        ...['-device', 'ide-hd,drive=d'],
      ),
  },
  {
    name: 'an external snapshot since its start',
    ...{ field: 9, quick: true, make: asQcow2, expected: movedOrRefused(/layer\.qcow2.*snapshot.*block-commit/) },
    command: (at) => pc(...drive(at)),
    said: (at) => snapshot(at, 'd0'),
  },
  {
    name: 'an external snapshot, adopted, both hosts on one file system',
    ...{ field: 9, begun: 'adopted', make: asQcow2, expected: movedOrRefused(/layer\.qcow2.*snapshot.*block-commit/) },
    command: (at) => pc(...drive(at)),
    said: (at) => snapshot(at, 'd0'),
    there: (b, { folder }) => b.share(join(folder, '..')),
  },
  {
    name: 'an external snapshot that was merged again',
    ...{ field: 9, make: asQcow2, expected: moved },
    command: (at) => pc(...drive(at)),
    said: (at) => [
      ...snapshot(at, 'd0'),
      ['block-commit', { device: 'd0', 'job-id': 'merge', 'auto-dismiss': true }],
      ['job-complete', { id: 'merge' }],
    ],
  },
  {
    name: 'internal snapshots',
    field: 9,
    make: (at) => {
      asQcow2(at);
      qemuImg('snapshot', '-c', 'before', qcow2(at));
    },
    command: (at) => pc(...drive(at)),
    expected: refused(/internal snapshots/),
  },
  {
    name: 'raw, 10000001 bytes',
    field: 21,
    make: ({ disk }) => truncateSync(disk, 10_000_001),
    command: ({ disk }) => pc(...ide(disk)),
    expected: moved,
  },
  {
    name: 'raw, a sector more than a block',
    ...{ field: 21, expected: moved },
    make: ({ disk }) => truncateSync(disk, 4 * 1024 * 1024 + 512),
    command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=virtio`),
  },
  {
    name: 'a second disk of one sector',
    field: 21,
    make: ({ folder }) => writeFileSync(join(folder, 'small.img'), Buffer.alloc(512, 7)),
    command: ({ disk, folder }) => pc(...ide(disk), '-drive', `file=${join(folder, 'small.img')},format=raw,if=virtio`),
    expected: moved,
  },
  {
    name: 'stopped, 10000001 bytes',
    ...{ field: 21, begun: 'stopped', expected: moved },
    make: ({ disk }) => truncateSync(disk, 10_000_001),
    command: ({ disk }) => pc(...ide(disk)),
  },
  ...(['64G', '2T'] as const).map(
    (size): GuestShape => ({
      name: `thin, ${size}`,
      ...{ field: 26, expected: moved },
      make: ({ disk }) => qemuImg('resize', '-q', '-f', 'raw', disk, size),
      command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=virtio`),
    }),
  ),
  {
    name: 'two disks of one name',
    field: 0,
    make: ({ disk, folder }) => {
      mkdirSync(join(folder, 'second'));
      copyFileSync(disk, join(folder, 'second', 'disk.img'));
      appendFileSync(join(folder, 'second', 'disk.img'), Buffer.alloc(65_536, 3));
    },
    command: ({ disk, folder }) =>
      pc(...ide(disk), '-drive', `file=${join(folder, 'second', 'disk.img')},format=raw,if=virtio`),
    expected: moved,
  },
  ...(['a b.img', 'büro-東京.img', 'a,b.img', 'a=b,if=none.img', 'it\'s "quoted".img'] as const).map(
    (name): GuestShape => ({
      name: `a path with ${name}`,
      ...{ field: 32, make: renamed(name), expected: moved },
      command: ({ folder }) => pc(...ide(join(folder, name).replaceAll(',', ',,'))),
    }),
  ),
  {
    name: 'a letter escaped in JSON',
    ...{ field: 32, quick: true, make: renamed('büro,1.img'), expected: moved },
    command: ({ folder }) =>
      pc(
        '-blockdev',
        `{"driver":"file","filename":"${folder}/b\\u00fcro,1.img","node-name":"s"}`,
        ...json({ driver: 'raw', file: 's', 'node-name': 'd' }),
        ...['-device', 'ide-hd,drive=d'],
      ),
  },
  {
    name: 'adopted with -hda of a qcow2 file',
    ...{ field: 29, begun: 'adopted', make: asQcow2, expected: moved },
    command: (at) => pc('-hda', qcow2(at)),
    arrived: ({ guest }) =>
      (guest?.command ?? []).some((word) => /format=(raw|qcow2)/.test(word)) ? undefined : 'its format is not named',
  },
  {
    name: 'defined with -hda',
    ...{ field: 29, make: asQcow2, expected: movedOrRefused(/format/) },
    command: (at) => pc('-hda', qcow2(at)),
  },
  ...['native', 'io_uring', 'threads'].map(
    (aio): GuestShape => ({
      name: `cache=none,aio=${aio}`,
      ...{ field: 37, expected: moved },
      command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=virtio,cache=none,aio=${aio}`),
    }),
  ),
  {
    name: 'cache=none, and no O_DIRECT at the destination',
    field: 37,
    command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=virtio,cache=none,aio=native`),
    there: (b, { folder }) => b.hide(join(folder, '..', '..', 'b', 'images'), 'ramfs'),
    expected: movedOrRefused(/O_DIRECT|cache=none|direct/i),
  },
  {
    name: 'aio=io_uring, which the destination’s kernel has not',
    field: 37,
    command: ({ disk }) => q35('-drive', `file=${disk},format=raw,if=virtio,cache=none,aio=io_uring`),
    there: (b) =>
      b.beforeQemu(
        'case "$*" in *aio=io_uring*-incoming*) echo "qemu: aio=io_uring: failed to init linux io_uring ring: Operation not ' +
          'permitted" >&2; exit 1;; esac',
      ),
    expected: movedOrRefused(/io_uring/),
  },
];
