/**
 * Real guests for `bench -- encoding`: Debian with a web server, an object cache and a database, 1 GiB of memory, booted by
 * QEMU and worked at. Gives memory and disk as files, now and three minutes later. Memory lies in a file that QEMU shares;
 * it is copied while the process stands still.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Child, Children } from '../src/cli/demo/children';
import { cpioOf } from '../src/cli/demo/cpio';
import { guestPackages, initramfs, serialLine } from '../src/cli/demo/linux-guest';
import { diskInit, makeDebianDisk, missingForDebian } from './debian-guest';
import { say } from './report';

export const ROLES = ['idle', 'web', 'db'] as const;
export type Role = (typeof ROLES)[number];

export interface Snapshot {
  readonly memory: string;
  readonly disk: string;
}

export interface GuestData {
  readonly role: Role;
  readonly before: Snapshot;
  /** Three minutes later. */
  readonly after: Snapshot;
}

const MEMORY_MIB = 1024;
const DISK_MIB = 1024;
const READY_MS = 400_000;
const WORK_MS = 30_000;
const STAY_MS = 180_000;
const PACKAGES = ['nginx-light', 'redis-server', 'redis-tools', 'sqlite3', 'python3-minimal', 'busybox-static'];

/** What runs as the first process of the guest's own system. */
const ROLE = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /run; mkdir -p /run/redis
for a in $(cat /proc/cmdline); do case $a in guest.role=*) role=\${a#guest.role=};; esac; done
busybox ifconfig lo 127.0.0.1 up
find /usr/lib /usr/bin /etc -xdev -type f -print0 | head -z -n 3000 | xargs -0 cat > /dev/null 2>&1
case $role in
web)
  mkdir -p /srv/www && cd /srv/www
  i=0; while [ $i -lt 400 ]; do
    { echo "<html><head><title>Article $i</title></head><body>"
      tail -c +$((i * 2000 + 1)) /usr/share/perl5/*.pm /usr/share/common-licenses/GPL-3 2>/dev/null | head -c 20000
      echo "</body></html>"; } > $i.html; i=$((i+1)); done
  sed -i 's#root /var/www/html#root /srv/www#; ' /etc/nginx/sites-enabled/default; nginx
  redis-server --daemonize yes --save "" --dir /run > /dev/null
  records() { awk -v from=$1 -v count=$2 -v seed=$3 'BEGIN { srand(seed); for (i = 0; i < count; i++)
    printf "SET user:%d \\047{\\"id\\":%d,\\"name\\":\\"user-%x\\",\\"mail\\":\\"u%d@example.org\\",\\"visits\\":%d,\\"score\\":%.6f,\\"token\\":\\"%08x%08x\\"}\\047\\r\\n",
    (from + i * 37) % 60000, i, rand() * 1e9, rand() * 1e6, rand() * 1000, rand(), rand() * 4e9, rand() * 4e9
    }' | redis-cli --pipe > /dev/null; }
  records 0 60000 7
  echo ready > /dev/ttyS0
  n=0; while true; do n=$((n+1))
    for k in 1 2 3; do busybox wget -q -O /dev/null http://127.0.0.1/$(((n * 7 + k) % 400)).html; done
    records $((n * 131)) 100 $n; sleep 0.05; done ;;
db)
  mkdir -p /srv/db && cd /srv/db
  sqlite3 shop.db "PRAGMA journal_mode=WAL; PRAGMA page_size=4096;
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, city TEXT, item TEXT, price REAL, placed TEXT, note TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
    INSERT INTO orders SELECT i, 'customer-' || (abs(random()) % 9000),
      substr('Zurich  Geneva  Basel   Lausanne', 1 + 8 * (abs(random()) % 4), 8), 'item ' || (abs(random()) % 500),
      (abs(random()) % 100000) / 100.0, datetime(1700000000 + i * 37, 'unixepoch'), hex(randomblob(12)) FROM n;
    CREATE INDEX by_customer ON orders (customer); CREATE INDEX by_placed ON orders (placed);" > /dev/null
  cat shop.db > /dev/null; sync
  echo ready > /dev/ttyS0
  n=0; while true; do n=$((n+1))
    sqlite3 shop.db "UPDATE orders SET price = price + 1, note = hex(randomblob(12))
        WHERE id % 997 = $((n * 13 % 997)) AND id < 20000;
      INSERT INTO orders (customer, city, item, price, placed, note)
        VALUES ('customer-$n', 'Basel', 'item $n', $n, datetime('now'), hex(randomblob(12)));" > /dev/null; sleep 0.1; done ;;
*)
  echo ready > /dev/ttyS0
  while true; do date >> /var/log/idle; sleep 1; done ;;
esac
`;

/** Boots all roles at once and works at them. @returns undefined with the reason said where this machine cannot */
export async function guestData(folder: string, children: Children): Promise<GuestData[] | undefined> {
  if ((await missingForDebian(children, [['qemu-system-x86_64', 'qemu-system-x86']])) !== undefined) return undefined;
  mkdirSync(folder, { recursive: true });
  const base = join(folder, 'base.img');
  say('a Debian for the guests');
  await makeDebianDisk(folder, { path: base, sizeMiB: DISK_MIB, packages: PACKAGES }, children, (root) =>
    writeFileSync(join(root, 'role'), ROLE, { mode: 0o755 }),
  );
  const parts = await guestPackages(children, say);
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, gzipSync(cpioOf(initramfs(parts, diskInit('/role'))), { level: 1 }));
  return Promise.all(ROLES.map((role) => guestOf(role, join(folder, role), base, parts.kernel, initrd, children)));
}

async function guestOf(
  role: Role,
  folder: string,
  base: string,
  kernel: string,
  initrd: string,
  children: Children,
): Promise<GuestData> {
  mkdirSync(folder, { recursive: true });
  const [disk, memory, serial] = [join(folder, 'disk'), join(folder, 'ram'), join(folder, 'serial')];
  execFileSync('cp', ['--sparse=always', base, disk]);
  const guest = children.start(`guest-${role}`, 'qemu-system-x86_64', [
    '-accel',
    'tcg',
    '-M',
    'q35,memory-backend=ram',
    '-object',
    `memory-backend-file,id=ram,size=${MEMORY_MIB}M,mem-path=${memory},share=on`,
    '-m',
    String(MEMORY_MIB),
    '-display',
    'none',
    '-vga',
    'none',
    '-nic',
    'none',
    '-serial',
    `file:${serial}`,
    '-kernel',
    kernel,
    '-initrd',
    initrd,
    '-append',
    `console=ttyS0 quiet panic=1 guest.role=${role}`,
    '-drive',
    `file=${disk},format=raw,if=virtio`,
  ]);
  await serialLine(serial, /^ready/, READY_MS);
  say(`  ${role} is ready`);
  await new Promise((resolve) => setTimeout(resolve, WORK_MS));
  const before = snapshot(guest, folder, 'before', memory, disk);
  await new Promise((resolve) => setTimeout(resolve, STAY_MS));
  const after = snapshot(guest, folder, 'after', memory, disk);
  guest.process.kill('SIGKILL');
  await guest.ended;
  rmSync(memory);
  return { role, before, after };
}

function snapshot(guest: Child, folder: string, name: string, memory: string, disk: string): Snapshot {
  const taken = { memory: join(folder, `memory-${name}`), disk: join(folder, `disk-${name}`) };
  guest.process.kill('SIGSTOP');
  for (const [from, to] of [
    [memory, taken.memory],
    [disk, taken.disk],
  ] as const)
    if (existsSync(from)) execFileSync('cp', ['--sparse=always', from, to]);
  guest.process.kill('SIGCONT');
  return taken;
}
