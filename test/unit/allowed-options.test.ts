/** What a guest's QEMU command may hold: what leads out of the guest is refused by name, whatever way it is written. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Allowance, OWN_HOST } from '../../src/hypervisor/qemu/allowance';
import { assertAllowed, objectionToCommand, programOf } from '../../src/hypervisor/qemu/allowed-options';
import { arrivingAllowance } from '../../src/hypervisor/qemu/arriving-allowance';
import { temporaryFolder } from '../helpers/data';

const QEMU = 'qemu-system-x86_64';
const RUN = '/data/run/vm';
const DISK = '/data/images/vm/vda.img';
const HERE = arrivingAllowance(
  { qemuFolder: '', folders: ['/guests', '/usr/share/OVMF'], networks: ['tap7', 'br7'] },
  [DISK],
  RUN,
);

function objection(args: readonly string[], allowance: Allowance = HERE): string | undefined {
  return objectionToCommand([QEMU, ...args], allowance);
}

/** Each with a word that has to be in the refusal: the option, or the key of it. */
const HOSTILE: readonly (readonly [readonly string[], string])[] = [
  // Programs.
  [['-netdev', 'tap,id=n,ifname=tap7,script=/evil.sh,downscript=no'], 'script='],
  [['-netdev', 'tap,id=n,ifname=tap7,script=no,downscript=/evil.sh'], 'downscript='],
  [['-netdev', 'tap,id=n,ifname=tap7'], 'script='],
  [['-netdev', 'tap,id=n,ifname=tap7,script=no,downscript=no,helper=/evil'], 'helper='],
  [['-netdev', 'bridge,id=n,br=br7,helper=/evil'], 'helper='],
  [['-nic', 'tap,ifname=tap7,downscript=no'], 'script='],
  [['-net', 'tap,ifname=tap7,script=/evil,downscript=no'], 'script='],
  [['-netdev', 'user,id=n,guestfwd=tcp:10.0.2.100:1-cmd:/evil'], 'guestfwd='],
  [['-plugin', '/evil.so'], '-plugin'],
  [['-chardev', 'pipe,id=c,path=/evil'], 'pipe'],
  [['-incoming', 'exec:/evil'], '-incoming'],
  [['-run-with', 'async-teardown=on,chroot=/evil'], '-run-with'],
  [['-chroot', '/evil'], '-chroot'],
  [['-runas', 'root'], '-runas'],
  // Sockets, ports, descriptors.
  [['-netdev', 'socket,id=n,listen=:1'], 'socket'],
  [['-netdev', '{"type":"stream","id":"n","addr":{"type":"unix","path":"/evil"}}'], 'stream'],
  [['-netdev', 'vhost-user,id=n,chardev=c'], 'vhost-user'],
  // The program that is missed, and not the socket that leads to it.
  [['-chardev', 'socket,id=c,path=/run/fs.sock', '-device', 'vhost-user-fs-pci,chardev=c,tag=t'], 'virtiofsd'],
  [['-chardev', 'socket,id=c,path=/run/sw.sock', '-netdev', 'vhost-user,id=n,chardev=c'], 'vhost-user'],
  [['-chardev', 'socket,id=c,path=/run/blk.sock', '-device', 'vhost-user-blk-pci,chardev=c'], 'vhost-user'],
  [
    ['-chardev', 'socket,id=c,path=/run/tpm.sock', '-tpmdev', 'emulator,id=t,chardev=c', '-device', 'tpm-crb,tpmdev=t'],
    '/run/tpm.sock',
  ],
  [['-netdev', 'tap,id=n,fd=3'], 'fd='],
  [['-device', 'virtio-net-pci,socket-id=1'], 'socket-id='],
  [['-netdev', 'user,id=n,hostfwd=tcp::22-:22'], 'hostfwd='],
  [['-netdev', 'tap,id=n,ifname=eth0,script=no,downscript=no'], 'eth0'],
  [['-netdev', 'bridge,id=n,br=br-secret'], 'br-secret'],
  [['-chardev', 'socket,id=c,host=10.0.0.1,port=80'], 'host'],
  [['-chardev', `socket,id=c,path=${RUN}/x.sock`], 'server=on'],
  [['-chardev', `socket,id=c,path=${RUN}/qmp.sock,server=on`], 'qmp.sock'],
  [['-chardev', 'socket,id=c,fd=5,server=on'], 'fd'],
  [['-chardev', `file,id=c,path=/etc/cron.d/evil`], '/etc/cron.d/evil'],
  [['-chardev', `file,id=c,path=${RUN}/x,input-path=/etc/shadow`], 'input-path'],
  [['-chardev', 'null,id=c,logfile=/evil'], '/evil'],
  [['-serial', 'tcp:10.0.0.1:1'], '-serial'],
  [['-serial', 'file:/evil'], '/evil'],
  [['-serial', `unix:${RUN}/../../evil,server=on`], 'evil'],
  [['-serial', '/dev/ttyS0'], '-serial'],
  [['-serial', 'mon:telnet::1,server=on'], '-serial'],
  [['-monitor', 'unix:/evil,server=on'], '-monitor'],
  [['-qmp', 'tcp::1,server=on'], '-qmp'],
  [['-mon', 'chardev=c'], '-mon'],
  [['-gdb', 'tcp::1'], '-gdb'],
  [['-s'], '-s'],
  [['-qtest', 'unix:/evil'], '-qtest'],
  [['-vnc', ':1'], '-vnc'],
  [['-vnc', 'unix:/evil'], '/evil'],
  [['-display', 'vnc=:1'], '-display'],
  [['-display', 'egl-headless,rendernode=/dev/dri/renderD128'], '-display'],
  [['-spice', 'port=5900'], '-spice'],
  [['-add-fd', 'fd=3,set=1'], '-add-fd'],
  // Files.
  [['-drive', 'file=/etc/shadow,format=raw'], '/etc/shadow'],
  [['-drive', `file=${DISK}`], 'format=raw'],
  [['-drive', `file=${DISK},format=vmdk`], 'vmdk'],
  [['-drive', `file=${DISK},format=raw,file.driver=nbd`], 'nbd'],
  [['-drive', 'file=nbd:evil:1,format=raw'], 'nbd:evil'],
  [['-drive', 'file=https://evil/x,format=raw,readonly=on'], 'https:'],
  [['-drive', 'file=ssh://evil/x,format=raw'], 'ssh:'],
  [['-drive', 'file=json:{"driver":"file"},format=raw'], 'json:'],
  [['-drive', 'file=fd:3,format=raw'], 'fd:3'],
  [['-drive', 'file=/dev/sda,format=raw'], '/dev/sda'],
  [['-drive', 'file=/dev/sda,format=raw,readonly=on'], '/dev/sda'],
  [['-drive', 'file=/proc/1/mem,format=raw,readonly=on'], '/proc/1/mem'],
  [['-drive', 'file=/guests/../etc/shadow,format=raw,readonly=on'], 'plainly'],
  [['-drive', `file=${DISK},format=qcow2,backing.file.filename=/etc/shadow`], 'backing'],
  [['-drive', `file=${DISK},format=qcow2,data-file.filename=/etc/shadow`], 'data-file'],
  [['-drive', `file=${DISK},file.filename=/etc/shadow,format=raw`], 'two files'],
  [['-drive', `file=${DISK},file=/etc/shadow,format=raw`], 'twice'],
  [['-drive', `file=${DISK}x,format=raw`], 'vda.imgx'],
  [['-drive', `file=${DISK},,x,format=raw`], 'vda.img,x'],
  [['-drive', `file=/etc/shadow,format=raw,media=cdrom,readonly=off`], '/etc/shadow'],
  [['-hda', DISK], '-hda'],
  [['-cdrom', '/etc/shadow'], '/etc/shadow'],
  [['-blockdev', '{"driver":"file","filename":"/etc/shadow","node-name":"d"}'], '/etc/shadow'],
  [['-blockdev', '{"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/etc/shadow"}}'], '/etc/shadow'],
  [['-blockdev', 'driver=nbd,node-name=d,server.type=unix,server.path=/evil'], 'nbd'],
  [['-blockdev', 'driver=host_device,node-name=d,filename=/dev/sda'], 'host_device'],
  [['-blockdev', 'driver=luks,node-name=d,file=f,key-secret=s'], 'luks'],
  [['-blockdev', `driver=file,filename=${DISK},node-name=d,pr-manager=p`], 'pr-manager'],
  [
    ['-blockdev', '{"driver":"qcow2","node-name":"d","file":"f","backing":{"driver":"file","filename":"/evil"}}'],
    'backing',
  ],
  [['-object', 'memory-backend-file,id=m,size=64M,mem-path=/evil,share=on'], 'memory-backend-file'],
  [['-object', '{"qom-type":"memory-backend-file","id":"m","size":1,"mem-path":"/evil"}'], 'memory-backend-file'],
  [['-object', 'secret,id=s,file=/etc/shadow'], 'secret'],
  [['-object', '{"qom-type":"secret","id":"s","data":"x"}'], 'secret'],
  [['-object', 'filter-dump,id=f,netdev=n,file=/evil'], 'filter-dump'],
  [['-object', 'rng-random,id=r,filename=/etc/shadow'], 'filename='],
  [['-object', 'rng-egd,id=r,chardev=c'], 'rng-egd'],
  [['-object', 'input-linux,id=i,evdev=/dev/input/event0'], 'input-linux'],
  [['-kernel', '/boot/vmlinuz'], '/boot/vmlinuz'],
  [['-initrd', '/etc/shadow'], '/etc/shadow'],
  [['-initrd', '/guests/x,/etc/shadow'], 'comma'],
  [['-initrd', '/guests/x y'], 'space'],
  [['-dtb', '/evil'], '-dtb'],
  [['-bios', '/evil'], '-bios'],
  [['-bios', 'evil.bin'], '-bios'],
  [['-pflash', '/evil'], '-pflash'],
  [['-machine', 'q35,firmware=/evil'], 'firmware'],
  [['-machine', 'q35,dumpdtb=/evil'], 'dumpdtb'],
  [['-M', 'virt,kernel=/evil'], 'kernel'],
  [['-smbios', 'file=/etc/shadow'], 'file'],
  [['-smbios', 'type=11,path=/etc/shadow'], 'path'],
  [['-fw_cfg', 'name=opt/x,file=/etc/shadow'], 'file'],
  [['-acpitable', 'file=/etc/shadow'], '-acpitable'],
  [['-boot', 'order=c,splash=/evil'], 'splash'],
  [['-icount', 'shift=1,rr=record,rrfile=/evil'], 'rr'],
  [['-readconfig', '/evil'], '-readconfig'],
  [['-writeconfig', '/evil'], '-writeconfig'],
  [['-loadvm', 'x'], '-loadvm'],
  [['-D', '/evil'], '-D'],
  [['-trace', 'file=/evil'], '-trace'],
  [['-mem-path', '/evil'], '-mem-path'],
  [['-L', '/evil'], '-L'],
  [['-option-rom', '/evil'], '-option-rom'],
  [['-virtfs', 'local,path=/,mount_tag=x,security_model=none'], '-virtfs'],
  [['-fsdev', 'local,id=f,path=/,security_model=none'], '-fsdev'],
  [['-set', 'drive.d.file=/etc/shadow'], '-set'],
  [['-sandbox', 'off'], '-sandbox'],
  [['-accel', 'kvm,device=/evil'], 'device'],
  [['-audiodev', 'wav,id=a,path=/evil'], '-audiodev'],
  // Devices.
  [['-device', 'vfio-pci,host=01:00.0'], 'vfio-pci'],
  [['-device', '{"driver":"vfio-pci","sysfsdev":"/sys/x"}'], 'vfio-pci'],
  [['-device', 'usb-host,hostbus=1,hostaddr=2'], 'usb-host'],
  [['-device', 'virtio-9p-pci,fsdev=f,mount_tag=x'], 'virtio-9p-pci'],
  [['-device', 'loader,file=/etc/shadow,addr=0'], 'loader'],
  [['-device', 'virtio-net-pci,netdev=n,romfile=/evil'], 'romfile'],
  [['-device', 'virtio-net-pci,netdev=n,romfile=evil'], 'romfile'],
  [['-device', 'virtio-net-pci,netdev=n,ebpf-rss-fds=3:4'], 'ebpf-rss-fds'],
  [['-device', 'virtio-blk-pci,drive=/etc/shadow'], '/etc/shadow'],
  [['-device', 'virtio-input-host-pci,evdev=/dev/input/event0'], 'virtio-input-host'],
  [['-device', 'usb-mtp,rootdir=/'], 'usb-mtp'],
  [['-device', 'ivshmem-plain,memdev=m'], 'ivshmem'],
  [['-device', 'constructor'], 'constructor'],
  [['-device', '{"driver":"virtio-blk-pci","driver":"x'], 'cannot be read'],
  [['-global', 'virtio-net-pci.romfile=/evil'], 'romfile'],
  [['-global', 'driver=virtio-net-pci,property=romfile,value=/evil'], 'romfile'],
  [['-global', 'migration.tls-creds=x'], 'migration'],
  [['-tpmdev', 'passthrough,id=t,path=/dev/tpm0'], 'passthrough'],
  [['-chardev', 'socket,id=c,host=10.0.0.1,port=80', '-tpmdev', 'emulator,id=t,chardev=c'], 'host'],
  [['-chardev', `socket,id=d,path=${RUN}/x.sock`, '-tpmdev', 'emulator,id=t,chardev=c'], 'server=on'],
  // Ways of writing.
  [['-cpu', '(a+)+$'], '-cpu'],
  [['-cpu', '[', '-M', 'q35'], '-cpu'],
  [['--drive', 'file=/etc/shadow,format=raw'], '-drive "/etc/shadow"'],
  [['-drive=file=/etc/shadow'], '-drive=file'],
  [['@/etc/shadow'], '@/etc/shadow'],
  [['/etc/shadow'], '/etc/shadow'],
  [['-name', '-drive', 'file=/etc/shadow'], '-name'],
  [['-name', 'x\ny'], '-name'],
  [['-unheard-of', 'x'], '-unheard-of'],
  [['-constructor'], '-constructor'],
  [['-machine', 'q35,constructor=x'], 'constructor'],
  [['-drive', `format=raw,file=${DISK},readonly=on,read-only=off`], 'vda.img'],
  [['-snapshot'], '-snapshot'],
  [['-cpu'], '-cpu'],
];

test.each(HOSTILE)('%j is refused, with %s', (args, names) => {
  const said = args[0] === '-drive' && names === 'vda.img' ? undefined : objection(args);
  // The guest's own disk may be written; what counts is that it is not taken for one that is only read.
  if (said === undefined) expect(names).toBe('vda.img');
  else expect(said).toContain(names);
});

test.each(HOSTILE)('%j is refused behind what is allowed, as one coded line', (args, names) => {
  if (names === 'vda.img') return;
  let thrown: unknown;
  try {
    assertAllowed([QEMU, '-M', 'q35', '-m', '64', ...args], HERE);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ code: 'GUEST_REFUSED', message: expect.stringMatching(/^[^\n]{20,700}$/) as unknown });
});

const LEGAL: readonly (readonly string[])[] = [
  ['-accel', 'tcg', '-M', 'q35', '-m', '64', '-display', 'none', '-vga', 'none', '-nic', 'none', '-serial', 'null'],
  ['-drive', `file=${DISK},format=raw,if=ide`],
  [
    '-drive',
    `file=${DISK},format=raw,if=none,id=d0,cache=none,aio=native,discard=unmap,iops=100,throttling.bps-total=5`,
  ],
  ['-device', 'virtio-blk-pci,drive=d0,bootindex=1,serial=a b,bus=pci.4,addr=0x0'],
  [
    '-blockdev',
    `{"driver":"raw","node-name":"d","cache":{"direct":true},"file":{"driver":"file","filename":"${DISK}"}}`,
  ],
  ['-blockdev', `driver=file,filename=${DISK},node-name=f`, '-blockdev', 'driver=raw,file=f,node-name=d'],
  ['-drive', 'if=ide,media=cdrom'],
  ['-cdrom', '/guests/x.iso'],
  ['-kernel', '/guests/vmlinuz', '-initrd', '/guests/initrd', '-append', 'console=ttyS0 root=/dev/vda init=/bin/sh'],
  ['-drive', 'if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd'],
  ['-cpu', 'Skylake-Client-v1,+avx2,-hle,hv-vendor-id=x', '-smp', '2,sockets=1,cores=2', '-uuid', '5f0e'],
  ['-name', 'guest=web 1,debug-threads=on', '-rtc', 'base=utc,driftfix=slew', '-boot', 'strict=on', '-no-reboot'],
  ['-global', 'kvm-pit.lost_tick_policy=delay', '-global', 'driver=cfi.pflash01,property=secure,value=on'],
  ['-object', 'memory-backend-ram,id=m,size=64M', '-machine', 'q35,memory-backend=m', '-overcommit', 'mem-lock=off'],
  ['-object', 'rng-random,id=r,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=r'],
  [
    '-device',
    '{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"}',
  ],
  ['-netdev', 'user,id=n', '-device', 'e1000,netdev=n,mac=52:54:00:12:34:56,romfile='],
  ['-netdev', 'tap,id=n,ifname=tap7,script=no,downscript=no,vhost=on'],
  ['-device', 'qemu64-x86_64-cpu,id=cpu1,socket-id=1,core-id=0,thread-id=0'],
  ['-chardev', `socket,id=c,path=${RUN}/tpm.sock`, '-tpmdev', 'emulator,id=t,chardev=c', '-device', 'tpm-tis,tpmdev=t'],
  ['-nic', 'bridge,br=br7,model=virtio-net-pci'],
  ['-chardev', `socket,id=c,path=${RUN}/c.sock,server=on,wait=off,logfile=${RUN}/c.log`],
  ['-serial', `file:${RUN}/serial.log`, '-vnc', `unix:${RUN}/vnc.sock`],
  ['-smbios', 'type=1,manufacturer=A/B,serial=1', '-usb', '-device', 'usb-tablet', '-audiodev', 'none,id=a'],
];

test.each(LEGAL)('%s %s … is a guest’s to have', (...args) => {
  expect(objection(args)).toBeUndefined();
  expect(objection(args, OWN_HOST)).toBeUndefined();
});

test('the operator of a host may name any file, tap and place of it, and still no program, socket or guessed format', () => {
  expect(
    objection(['-vnc', '127.0.0.1:1', '-drive', 'file=/vms/web.img,format=raw', '-kernel', '/boot/k'], OWN_HOST),
  ).toBe(undefined);
  for (const [args] of HOSTILE.filter(([[flag = '']]) =>
    /netdev|plugin|incoming|hda|virtfs|set|readconfig|device/.test(flag),
  ))
    if (!/eth0|br-secret|"filename"/.test(args.join())) expect(objection(args, OWN_HOST)).toBeDefined();
});

test('a block device is refused to the operator too, with the mend: it has no file to move', () => {
  expect(objection(['-drive', 'file=/dev/vg0/web,format=raw'], OWN_HOST)).toMatch(/block device.*qemu-img convert/);
});

test.each([
  ['/bin/sh'],
  ['sh'],
  [''],
  ['qemu-system-x86_64.sh'],
  ['/tmp/qemu-system-x86_64/evil'],
  ['qemu-system-x86_64 -evil'],
  ['qemu-img'],
  ['../qemu-system-'],
])('%j is no QEMU', (program) => {
  expect(() => programOf([program])).toThrow(/no QEMU/);
});

test('of a program only its base name counts', () => {
  expect(programOf(['/tmp/evil/qemu-system-x86_64'])).toBe(QEMU);
});

test('a file is one of a folder’s only by where it really is', () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'guests'));
  writeFileSync(join(folder, 'secret'), '');
  writeFileSync(join(folder, 'guests', 'kernel'), '');
  symlinkSync(join(folder, 'secret'), join(folder, 'guests', 'link'));
  const allowance = arrivingAllowance({ qemuFolder: '', folders: [join(folder, 'guests')], networks: [] }, [], RUN);
  expect(objection(['-kernel', join(folder, 'guests', 'kernel')], allowance)).toBeUndefined();
  expect(objection(['-kernel', join(folder, 'guests', 'not-there')], allowance)).toBeUndefined();
  expect(objection(['-kernel', join(folder, 'guests', 'link')], allowance)).toContain('guestFolders');
  expect(objection(['-kernel', `${join(folder, 'guests')}-evil`], allowance)).toContain('guestFolders');
});

/** Words that lead somewhere, each with `evil/` in it, and others that do not, put together in all ways. */
const VALUES = [
  ...[
    '/evil/x',
    'evil/x',
    './evil/x',
    `${DISK}/../evil/x`,
    `${RUN}/evil/x`,
    'nbd:evil/x',
    'exec:evil/x',
    'json:{"a":"/evil/x"}',
    'file:/evil/x',
  ],
  ...[
    'unix:/evil/x',
    'tcp:evil/x',
    '/dev/evil/x',
    `${DISK},,/evil/x`,
    `${DISK},file=/evil/x`,
    '-evil/x',
    '@/evil/x',
    'mon:unix:/evil/x',
  ],
  ...[
    DISK,
    `${RUN}/a.log`,
    '/guests/k',
    'on',
    'off',
    'raw',
    'qcow2',
    'file',
    'd',
    '1',
    'no',
    'none',
    'null',
    'tap7',
    'br7',
    '',
  ],
];
const KEYS = [
  ...'file filename file.filename file.driver format driver readonly read-only media snapshot if id node-name backing data-file'.split(
    ' ',
  ),
  ...'path logfile server wait host port fd script downscript helper ifname br hostfwd guestfwd smb tftp romfile drive chardev netdev'.split(
    ' ',
  ),
  ...'mem-path size qom-type type name string kernel initrd dtb firmware dumpdtb accel splash backend backing.file.filename'.split(
    ' ',
  ),
];
const FLAGS = [
  ...new Set(
    [...HOSTILE, ...LEGAL.map((args) => [args, ''] as const)].flatMap(([args]) =>
      args.filter((word) => /^-[a-zA-Z_-]+$/.test(word)),
    ),
  ),
];
const KINDS =
  'tap bridge user socket file null pipe virtio-blk-pci virtio-net-pci loader memory-backend-ram memory-backend-file secret q35 raw qcow2'.split(
    ' ',
  );
/** What is text for the guest, and nothing to QEMU. */
const FREE_TEXT = new Set(['-append', '-name', '-fw_cfg', '-smbios']);

test('whatever is put together: a command that is allowed leads nowhere but to the disks and places given', () => {
  const pair = fc.tuple(fc.constantFrom(...KEYS), fc.constantFrom(...VALUES));
  const json = fc.array(pair, { maxLength: 4 }).map((pairs) => JSON.stringify(Object.fromEntries(pairs)));
  const plain = fc
    .tuple(fc.constantFrom(...KINDS, ...VALUES), fc.array(pair, { maxLength: 4 }))
    .map(([first, pairs]) => [first, ...pairs.map(([key, value]) => `${key}=${value}`)].join(','));
  const words = fc.array(
    fc.oneof(
      fc
        .tuple(fc.constantFrom(...FLAGS), fc.oneof(plain, json, fc.constantFrom(...VALUES)))
        .map((both): string[] => both),
      fc.constantFrom(...FLAGS, ...VALUES).map((one) => [one]),
    ),
    { minLength: 1, maxLength: 3 },
  );
  let allowed = 0;
  fc.assert(
    fc.property(words, (parts) => {
      const args = parts.flat();
      if (objection(args) !== undefined) return;
      allowed += 1;
      const leading = args.filter((word, index) => word.includes('evil/') && !FREE_TEXT.has(args[index - 1] ?? ''));
      expect(leading).toEqual([]);
    }),
    { numRuns: 30_000 },
  );
  expect(allowed).toBeGreaterThan(100);
});
