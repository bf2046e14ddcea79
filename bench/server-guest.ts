/**
 * A real server for `bench -- guests --server`: Debian with PostgreSQL on an ext4 disk, pgbench at work in it. In each cycle it works for a
 * while, then says over its serial line what the four sums of pgbench are, which are one number where nothing was lost, and how
 * pg_amcheck --heapallindexed has ended.
 *
 *   cycle N accounts A tellers T branches B history H transactions X amcheck C
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Children } from '../src/cli/demo/children';
import { cpioOf } from '../src/cli/demo/cpio';
import { guestPackages, initramfs, type LinuxGuest } from '../src/cli/demo/linux-guest';
import { diskInit, makeDebianDisk, missingForDebian } from './debian-guest';
import { say } from './report';

const PACKAGES = ['postgresql', 'busybox-static'];
const DISK_MIB = 1536;
const MEMORY_MIB = 512;
/** 100,000 accounts each. */
const SCALE = 2;

/** Before its first boot, in its own folder: as processors without an emulator do it. */
const MAKE = `#!/bin/sh
set -e
export PATH=$(echo /usr/lib/postgresql/*/bin):/usr/sbin:/usr/bin:/sbin:/bin
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
install -d -o postgres -g postgres /srv/db /run/postgresql
as initdb -D /srv/db > /dev/null
cat >> /srv/db/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '/run/postgresql'
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
max_wal_size = 128MB
END
as pg_ctl -D /srv/db -w -l /tmp/log start > /dev/null
as createdb bench
as psql -q -d bench -c 'create extension amcheck'
as pgbench -i -q -s ${SCALE} bench 2> /dev/null
as pg_ctl -D /srv/db -w -m fast stop > /dev/null
`;

/** Its first process. */
const SERVER = `#!/bin/sh
export PATH=$(echo /usr/lib/postgresql/*/bin):/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /run
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
sum() { as psql -At -d bench -c "select sum($1) from pgbench_$2"; }
busybox ifconfig lo 127.0.0.1 up
install -d -o postgres -g postgres /run/postgresql
as pg_ctl -D /srv/db -w -t 600 -l /tmp/log start > /dev/null || { echo "no server: $(tail -n 1 /tmp/log)" > /dev/ttyS0; }
echo ready > /dev/ttyS0
n=0
while true; do
  n=$((n+1))
  as pgbench -n -c 4 -T 15 bench > /tmp/worked 2>&1
  x=$(sed -n 's/^number of transactions actually processed: \\([0-9]*\\).*/\\1/p' /tmp/worked)
  s="accounts $(sum abalance accounts) tellers $(sum tbalance tellers) branches $(sum bbalance branches) history $(sum delta history)"
  as pg_amcheck --heapallindexed -d bench > /tmp/checked 2>&1; c=$?
  echo "cycle $n $s transactions \${x:-none} amcheck $c" > /dev/ttyS0
done
`;

export async function makeServerGuest(folder: string, children: Children): Promise<LinuxGuest> {
  const missing = await missingForDebian(children);
  if (missing !== undefined) throw new Error(`${missing} is needed for the server`);
  say('a Debian with PostgreSQL');
  const [disk, initrd] = [join(folder, 'disk.img'), join(folder, 'initrd')];
  mkdirSync(folder, { recursive: true });
  await makeDebianDisk(folder, { path: disk, sizeMiB: DISK_MIB, packages: PACKAGES }, children, async (root) => {
    for (const [name, text] of [
      ['server', SERVER],
      ['make-server', MAKE],
    ] as const)
      writeFileSync(join(root, name), text, { mode: 0o755 });
    await children.run('make-server', 'chroot', [root, '/make-server']);
  });
  const parts = await guestPackages(children, say);
  writeFileSync(initrd, gzipSync(cpioOf(initramfs(parts, diskInit('/server'))), { level: 1 }));
  const kernel = join(folder, 'vmlinuz');
  await children.run('kernel', 'cp', [parts.kernel, kernel]);
  return { kernel, initrd, disk };
}

export function serverCommand({ kernel, initrd, disk }: LinuxGuest, serial: string): string[] {
  return [
    ...['qemu-system-x86_64', '-accel', 'tcg', '-M', 'q35', '-cpu', 'qemu64', '-m', String(MEMORY_MIB), '-smp', '1'],
    ...['-display', 'none', '-vga', 'none', '-nic', 'none', '-serial', `file:${serial}`, '-kernel', kernel],
    ...['-initrd', initrd, '-append', 'console=ttyS0 quiet panic=1', '-drive', `file=${disk},format=raw,if=virtio`],
  ];
}

export interface Cycle {
  readonly number: number;
  readonly transactions: string;
  /** What is wrong with its database. */
  readonly wrong: string | undefined;
}

const CYCLE =
  /^cycle (\d+) accounts (-?\d*) tellers (-?\d*) branches (-?\d*) history (-?\d*) transactions (\S+) amcheck (\d+)/;

/** The last that it has said of itself in a text of its serial line. */
export function lastCycle(text: string): Cycle | undefined {
  const matches = text.split(/\r?\n/).flatMap((line) => {
    const match = CYCLE.exec(line);
    return match ? [match] : [];
  });
  const [, number, accounts, tellers, branches, history, transactions = '', checked] = matches.at(-1) ?? [];
  if (number === undefined) return undefined;
  const sums = [accounts, tellers, branches, history];
  const lost = new Set(sums).size === 1 ? undefined : `its sums are ${sums.join(', ')}`;
  const broken = checked === '0' ? undefined : `pg_amcheck ends with ${checked ?? '?'}`;
  return { number: Number(number), transactions, wrong: lost ?? broken };
}
