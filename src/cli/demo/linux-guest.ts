/**
 * A real Linux guest to move: Debian's cloud kernel, busybox, an ext4 disk with real files on virtio-blk. Inside, page cache is
 * warm, memory and disk get dirty at a set pace, and every tick checks a piece of what is there against its checksum.
 *
 *   serial:  ready                      after the page cache is warm
 *            tick N                     every 200 ms;  `tick N BAD what` where a checksum differs
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { DwcpError, messageOf } from '../../model/errors';
import { MIB } from '../../model/units';
import { until } from '../../system/wait';
import type { Children } from './children';
import { type CpioEntry, cpioOf } from './cpio';
import { stageFiles } from './sample-vm';
import { findTool } from './tools';

export const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
];
const PACKAGES = { kernel: 'linux-image-cloud-amd64', busybox: 'busybox-static' };

export interface LinuxGuestOptions {
  readonly memoryMiB: number;
  readonly diskMiB: number;
  /** Files on the disk, of 1 MiB each, all read once: the warm page cache. */
  readonly filesMiB: number;
  /** Memory filled with random bytes. */
  readonly randomMiB: number;
  readonly dirtyKiBPerTick: number;
  /** Also writes to the disk, as much each second. */
  readonly diskKiBPerSecond: number;
  /** The disk is there on both hosts and is not written: memory alone is moved. */
  readonly readOnlyDisk?: boolean;
}

export interface LinuxGuest {
  readonly kernel: string;
  readonly initrd: string;
  readonly disk: string;
}

const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /run
for m in ${MODULES.join(' ')}; do insmod /modules/$m.ko; done
while [ ! -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /data 2>/dev/null || mount -t ext4 -o ro,noload /dev/vda /data
for a in $(cat /proc/cmdline); do case $a in guest.*) eval "\${a#guest.}";; esac; done
cat /data/files/* > /dev/null
mkdir -p /run/random; mkdir -p /data/written 2>/dev/null
k=0; while [ $k -lt $random ]; do dd if=/dev/urandom of=/run/random/$k bs=1M count=1 2>/dev/null; k=$((k+1)); done
(cd /run/random && md5sum * > /run/random.sums 2>/dev/null)
dd if=/dev/zero of=/run/dirty bs=1M count=8 2>/dev/null
echo ready > /dev/ttyS0
i=0; n=$(wc -l < /data/files.sums)
while true; do
  i=$((i+1)); bad=""
  dd if=/dev/urandom of=/run/dirty bs=\${dirty}k count=1 conv=notrunc seek=$((i % (8192 / dirty))) 2>/dev/null
  if [ $disk -gt 0 ] && [ $((i % 5)) = 0 ]; then
    w=$((i / 5 % 32))
    if [ -f /data/written/$w.sum ]; then (cd /data/written; md5sum -c $w.sum >/dev/null 2>&1) || bad="$bad written/$w"; fi
    dd if=/dev/urandom of=/data/written/$w bs=\${disk}k count=1 2>/dev/null
    (cd /data/written; md5sum $w > $w.sum); sync
  fi
  if [ $((i % 3)) = 0 ]; then
    l=$(sed -n "$((i / 3 % n + 1))p" /data/files.sums); (cd /data/files; echo "$l" | md5sum -c >/dev/null 2>&1) || bad="$bad $l"
    if [ $random -gt 0 ]; then l=$(sed -n "$((i / 3 % random + 1))p" /run/random.sums)
      (cd /run/random; echo "$l" | md5sum -c >/dev/null 2>&1) || bad="$bad random:$l"; fi
  fi
  echo "tick $i\${bad:+ BAD$bad}" > /dev/ttyS0
  sleep 0.2
done
`;

/** Kernel, initramfs and disk of a guest in a folder. @throws INVALID_INPUT with the reason where a package cannot be had */
export async function makeLinuxGuest(
  folder: string,
  options: LinuxGuestOptions,
  children: Children,
  say: (line: string) => void,
): Promise<LinuxGuest> {
  const parts = await guestPackages(children, say);
  mkdirSync(folder, { recursive: true });
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, gzipSync(cpioOf(initramfs(parts, INIT)), { level: 1 }));
  // All that the guest names lies in one folder, which its hosts can be told of.
  const kernel = join(folder, 'vmlinuz');
  copyFileSync(parts.kernel, kernel);
  const disk = join(folder, 'disk.img');
  await makeDisk(disk, folder, options, children, say);
  return { kernel, initrd, disk };
}

/** The command that runs it; its serial line goes to a file. */
export function linuxGuestCommand(
  { kernel, initrd, disk }: LinuxGuest,
  { memoryMiB, randomMiB, dirtyKiBPerTick, diskKiBPerSecond, readOnlyDisk }: LinuxGuestOptions,
  serialFile: string,
): string[] {
  const append = `console=ttyS0 quiet panic=1 guest.random=${randomMiB} guest.dirty=${dirtyKiBPerTick} guest.disk=${diskKiBPerSecond}`;
  return [
    'qemu-system-x86_64',
    '-accel',
    'tcg',
    '-M',
    'q35',
    '-cpu',
    'qemu64',
    '-m',
    String(memoryMiB),
    '-display',
    'none',
    '-vga',
    'none',
    '-nic',
    'none',
    '-serial',
    `file:${serialFile}`,
    '-kernel',
    kernel,
    '-initrd',
    initrd,
    '-append',
    append,
    '-drive',
    `file=${disk},format=raw,if=virtio${readOnlyDisk ? ',readonly=on' : ''}`,
  ];
}

/** Waits for a line of the guest's serial output. @returns that line */
export async function serialLine(file: string, matches: RegExp, timeoutMs: number): Promise<string> {
  const said = (): string => (existsSync(file) ? readFileSync(file, 'utf8') : '');
  const found = (): string | undefined =>
    said()
      .split(/\r?\n/)
      .find((line) => matches.test(line));
  await until(() => found() !== undefined, { everyMs: 100, withinMs: timeoutMs });
  const line = found();
  if (line === undefined)
    throw new DwcpError(
      'INTERNAL',
      `the guest did not say ${String(matches)} in time: ${said().slice(-300) || 'nothing'}`,
    );
  return line;
}

export interface Ticks {
  readonly last: number;
  readonly bad: readonly string[];
}

/** What the guest has said of itself so far. */
export function ticksOf(file: string): Ticks {
  const lines = existsSync(file)
    ? readFileSync(file, 'utf8')
        .split(/\r?\n/)
        .filter((line) => /^tick \d+( BAD.*)?$/.test(line))
    : [];
  return { last: Number(lines.at(-1)?.split(' ')[1] ?? 0), bad: lines.filter((line) => line.includes('BAD')) };
}

export interface GuestPackages {
  readonly kernel: string;
  /** Folder of the kernel's modules. */
  readonly modules: string;
  readonly busybox: string;
}

/** Kernel, modules and busybox: from this machine, or out of Debian's packages, which are kept in the cache. */
export async function guestPackages(children: Children, say: (line: string) => void): Promise<GuestPackages> {
  const cache = join(homedir(), '.cache', 'dwcp', 'guest');
  const present = (): GuestPackages | undefined => {
    const name = existsSync(join(cache, 'boot'))
      ? readdirSync(join(cache, 'boot')).find((file) => file.startsWith('vmlinuz-'))
      : undefined;
    const busybox = [join(cache, 'bin', 'busybox'), join(cache, 'usr', 'bin', 'busybox')].find((path) =>
      existsSync(path),
    );
    return name === undefined || busybox === undefined
      ? undefined
      : {
          kernel: join(cache, 'boot', name),
          modules: join(cache, 'lib', 'modules', name.slice('vmlinuz-'.length)),
          busybox,
        };
  };
  const known = present();
  if (known) return known;
  say('taking a kernel and busybox for the guest out of Debian’s packages');
  mkdirSync(cache, { recursive: true });
  try {
    const kernelPackage =
      /^\s*Depends: (linux-image-\S+)/m.exec(
        execFileSync('apt-cache', ['depends', PACKAGES.kernel], { encoding: 'utf8' }),
      )?.[1] ?? PACKAGES.kernel;
    await children.run('guest-packages', 'sh', [
      '-c',
      `cd "$1" && apt-get download ${kernelPackage} ${PACKAGES.busybox} && for f in *.deb; do dpkg-deb -x "$f" . && rm "$f"; done`,
      'sh',
      cache,
    ]);
  } catch (cause) {
    throw new DwcpError('INVALID_INPUT', `No kernel for a guest: ${messageOf(cause)}`, {
      hint: `apt-get update, then try again; ${PACKAGES.kernel} and ${PACKAGES.busybox} are needed`,
      cause,
    });
  }
  const found = present();
  if (!found) throw new DwcpError('INVALID_INPUT', 'Debian’s packages hold no kernel where one was expected');
  return found;
}

/** busybox, the modules that a virtio disk needs (insmod them in this order) and others, and `init` as the first process. */
export function initramfs(
  { busybox, modules }: GuestPackages,
  init: string,
  furtherModules: readonly string[] = [],
): CpioEntry[] {
  const applets = [
    'sh',
    'mount',
    'insmod',
    'sleep',
    'cat',
    'mkdir',
    'dd',
    'md5sum',
    'sed',
    'wc',
    'sync',
    'echo',
    'switch_root',
  ];
  const files = execFileSync('find', [modules, '-name', '*.ko*'], { encoding: 'utf8' }).split('\n');
  const modulePath = (name: string): string => files.find((path) => path.endsWith(`/${name}.ko`)) ?? '';
  return [
    ...['bin', 'proc', 'sys', 'dev', 'run', 'data', 'modules'].map((path): CpioEntry => ({ path, kind: 'folder' })),
    { path: 'bin/busybox', kind: 'file', content: readFileSync(busybox), executable: true },
    ...applets.map((name): CpioEntry => ({ path: `bin/${name}`, kind: 'link', target: 'busybox' })),
    ...[...MODULES, ...furtherModules].map(
      (name): CpioEntry => ({
        path: `modules/${name}.ko`,
        kind: 'file',
        content: readFileSync(modulePath(name)),
        executable: false,
      }),
    ),
    { path: 'init', kind: 'file', content: Buffer.from(init), executable: true },
  ];
}

/** An ext4 file system with real bytes of this machine, cut into files of 1 MiB, and their checksums. */
async function makeDisk(
  disk: string,
  folder: string,
  { diskMiB, filesMiB }: LinuxGuestOptions,
  children: Children,
  say: (line: string) => void,
): Promise<void> {
  const staging = join(folder, 'staging');
  const root = join(folder, 'root');
  mkdirSync(join(root, 'files'), { recursive: true });
  stageFiles(staging, filesMiB * 1.1 * MIB);
  const all = execFileSync('find', [staging, '-type', 'f'], { encoding: 'utf8', maxBuffer: 64 * MIB })
    .split('\n')
    .filter((path) => path !== '')
    .sort();
  const sums: string[] = [];
  const piece = Buffer.alloc(MIB);
  let filled = 0;
  for (const path of all) {
    const fd = openSync(path, 'r');
    for (let at = 0; at < statSync(path).size && sums.length < filesMiB; ) {
      const got = readSync(fd, piece, filled, MIB - filled, at);
      at += got;
      filled += got;
      if (filled < MIB) continue;
      const name = String(sums.length).padStart(4, '0');
      writeFileSync(join(root, 'files', name), piece);
      sums.push(`${createHash('md5').update(piece).digest('hex')}  ${name}`);
      filled = 0;
    }
    closeSync(fd);
  }
  writeFileSync(join(root, 'files.sums'), `${sums.join('\n')}\n`);
  const fd = openSync(disk, 'w');
  writeSync(fd, Buffer.alloc(1), 0, 1, diskMiB * MIB - 1);
  closeSync(fd);
  const mkfs = await findTool('mkfs.ext4', 'e2fsprogs', children, say);
  if (mkfs === undefined) throw new DwcpError('INVALID_INPUT', 'mkfs.ext4 is needed for the guest’s disk');
  await children.run('mkfs', mkfs, ['-q', '-F', '-d', root, disk]);
  rmSync(staging, { recursive: true });
  rmSync(root, { recursive: true });
}
