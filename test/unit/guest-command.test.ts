/** A QEMU command on its way to another host: the guest's own part stays, the host's part is made anew. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesOf } from '../../src/hypervisor/qemu/allowed-options';
import { qcow2SizeBytes } from '../../src/hypervisor/qemu/disk-format';
import { guestOwn, machineOf, ownArguments, pinMachine } from '../../src/hypervisor/qemu/guest-command';
import { diskPathsOf, namedFormat, nameFormats } from '../../src/hypervisor/qemu/guest-disks';
import { relocate } from '../../src/hypervisor/qemu/relocate';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { temporaryFolder } from '../helpers/data';

const COMMAND = [
  '/usr/bin/qemu-system-x86_64',
  '-M',
  'q35,accel=kvm',
  '-m',
  '512',
  '-S',
  '-daemonize',
  '-pidfile',
  '/run/x.pid',
  '-qmp',
  'unix:/run/x.qmp,server=on,wait=off',
  '-chardev',
  'socket,id=mon1,path=/run/x.mon,server=on,wait=off',
  '-mon',
  'chardev=mon1,mode=control',
  '-serial',
  'file:/var/log/x.log',
  '-kernel',
  '/boot/vmlinuz',
  '-drive',
  'file=/vms/x.qcow2,if=virtio,format=qcow2,l2-cache-size=1M',
  '-drive',
  'file=/iso/x.iso,media=cdrom',
  '-hdb',
  '/vms/y.img',
  '-incoming',
  'defer',
];

test('keeps what is the guest’s, and drops monitors and how it was started', () => {
  const own = guestOwn(COMMAND);
  for (const gone of [
    '-S',
    '-daemonize',
    '-pidfile',
    '-qmp',
    '-mon',
    '-incoming',
    'defer',
    'socket,id=mon1,path=/run/x.mon,server=on,wait=off',
  ])
    expect(own).not.toContain(gone);
  expect(own).toEqual(expect.arrayContaining(['-serial', 'file:/var/log/x.log', '-kernel', '/boot/vmlinuz']));
});

test('the variables of its firmware are small disks behind the others; what is only read below a node is none', () => {
  const code = '/usr/share/OVMF/OVMF_CODE_4M.fd';
  const own = guestOwn([
    'qemu',
    ...[
      '-drive',
      `if=pflash,format=raw,readonly=on,file=${code}`,
      '-drive',
      'if=pflash,format=raw,file=/vms/x_VARS.fd',
    ],
    ...['-drive', 'file=/vms/x.img,format=raw'],
  ]);
  expect(diskPathsOf(own)).toEqual(['/vms/x.img', '/vms/x_VARS.fd']);
  const nodes = guestOwn([
    'qemu',
    ...['-machine', 'q35,pflash0=code,pflash1=vars'],
    ...['-blockdev', `{"driver":"file","filename":"${code}","node-name":"code-file","auto-read-only":true}`],
    ...['-blockdev', '{"node-name":"code","read-only":true,"driver":"raw","file":"code-file"}'],
    ...['-blockdev', '{"driver":"file","filename":"/vms/x_VARS.fd","node-name":"vars-file","auto-read-only":true}'],
    ...['-blockdev', '{"node-name":"vars","read-only":false,"driver":"raw","file":"vars-file"}'],
    ...['-blockdev', 'driver=file,filename=/vms/x.img,node-name=d'],
  ]);
  expect(diskPathsOf(nodes)).toEqual(['/vms/x.img', '/vms/x_VARS.fd']);
  expect(filesOf(nodes)).toEqual({ read: [code], written: ['/vms/x_VARS.fd', '/vms/x.img'] });
  expect(nodes).toContain(
    `{"driver":"file","filename":"${code}","node-name":"code-file","auto-read-only":true,"read-only":true}`,
  );
  expect(nameFormats(['qemu', '-pflash', '/vms/x_VARS.fd'], () => 'raw')).toEqual([
    ...['qemu', '-drive', 'if=pflash,file=/vms/x_VARS.fd,format=raw'],
  ]);
});

test('finds the writable disks, and the other files that a host has to have', () => {
  expect(diskPathsOf(COMMAND)).toEqual(['/vms/x.qcow2', '/vms/y.img']);
  expect(filesOf(nameFormats(guestOwn(COMMAND), () => 'raw')).read).toEqual(['/boot/vmlinuz', '/iso/x.iso']);
});

test('gives disks their new places, raw, and logs the host’s own folder', () => {
  const moved = relocate(
    COMMAND,
    [
      { from: '/vms/x.qcow2', to: '/data/x/vda.img', raw: true },
      { from: '/vms/y.img', to: '/data/x/vdb.img', raw: true },
    ],
    '/data/run/x',
  );
  expect(moved).toEqual(
    expect.arrayContaining([
      'file=/data/x/vda.img,if=virtio,format=raw',
      'file=/iso/x.iso,media=cdrom',
      'file=/data/x/vdb.img,index=1,media=disk,format=raw',
      'file:/data/run/x/x.log',
    ]),
  );
});

test('leaves disks that arrive as files in the form they have', () => {
  expect(relocate(COMMAND, [{ from: '/vms/x.qcow2', to: '/data/x/vda.img', raw: false }], '/run')).toContain(
    'file=/data/x/vda.img,if=virtio,format=qcow2,l2-cache-size=1M',
  );
});

test.each([
  [
    ['-blockdev', 'driver=file,filename=/a.img,node-name=f', '-blockdev', 'driver=qcow2,node-name=d,file=f'],
    ['-blockdev', 'driver=file,filename=/b.img,node-name=f', '-blockdev', 'driver=raw,node-name=d,file=f'],
  ],
  [
    ['-blockdev', '{"driver":"qcow2","file":{"driver":"file","filename":"/a.img"},"node-name":"d"}'],
    ['-blockdev', '{"driver":"raw","file":{"driver":"file","filename":"/b.img"},"node-name":"d"}'],
  ],
  [
    ['-blockdev', 'driver=qcow2,node-name=base,read-only=on,file.driver=file,file.filename=/base.qcow2'],
    ['-blockdev', 'driver=qcow2,node-name=base,read-only=on,file.driver=file,file.filename=/base.qcow2'],
  ],
  [
    ['-blockdev', '{"driver":"file","filename":"/a.img","node-name":"f"}'],
    ['-blockdev', '{"driver":"file","filename":"/b.img","node-name":"f"}'],
  ],
  [
    ['-serial', 'mon:stdio'],
    ['-serial', 'file:/run/serial.log'],
  ],
  // A console never goes nowhere, and one serial line stays one: another device would be another machine.
  [['-nographic'], ['-display', 'none', '-serial', 'file:/run/serial.log']],
  [
    ['-nographic', '-serial', 'file:/a/console.log'],
    ['-display', 'none', '-serial', 'file:/run/console.log'],
  ],
  [
    ['-chardev', 'socket,id=s,path=/tmp/s.sock,server=on'],
    ['-chardev', 'socket,id=s,path=/run/s.sock,server=on,wait=off'],
  ],
  [
    // Two of one name, and names that are the agent's own: a serial line that reached a monitor would be the guest's.
    ['-serial', 'unix:/a/qmp.sock,server,wait=on', '-serial', 'file:/a/log', '-chardev', 'file,id=f,path=/b/log'],
    [
      '-serial',
      'unix:/run/guest-qmp.sock,server=on,wait=off',
      '-serial',
      'file:/run/log',
      '-chardev',
      'file,id=f,path=/run/2-log',
    ],
  ],
  [
    ['-vnc', '0.0.0.0:1', '-display', 'gtk'],
    ['-vnc', 'unix:/run/vnc.sock', '-display', 'none'],
  ],
  // What arrives is content: no first bytes of it say again what it is.
  [
    ['-hda', '/a.img'],
    ['-drive', 'file=/b.img,index=0,media=disk,format=raw'],
  ],
  [
    ['-drive', 'file=/a.img,if=ide'],
    ['-drive', 'file=/b.img,if=ide,format=raw'],
  ],
  [
    ['-drive', 'file.filename=/a.img,format=qcow2,backing='],
    ['-drive', 'file.filename=/b.img,format=raw'],
  ],
  [
    [
      '-blockdev',
      'driver=qcow2,node-name=base,read-only=on,file.driver=file,file.filename=/base.qcow2',
      '-blockdev',
      '{"driver":"qcow2","node-name":"d","backing":"base","file":{"driver":"file","filename":"/a.img"}}',
    ],
    ['-blockdev', '{"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/b.img"}}'],
  ],
  [
    ['-drive', 'file=/a.img.old,format=raw'],
    ['-drive', 'file=/a.img.old,format=raw'],
  ],
])('%j becomes %j', (given, expected) => {
  expect(relocate(['qemu', ...given], [{ from: '/a.img', to: '/b.img', raw: true }], '/run').slice(1)).toEqual(
    expected,
  );
});

test.each([
  [['-drive', 'file=/dev/vg/a,format=raw,if=ide'], '/a.img', ['-drive', 'file=/a.img,if=ide,format=raw']],
  [
    [
      '-blockdev',
      'driver=host_device,filename=/dev/vg/a,node-name=f',
      '-blockdev',
      'driver=raw,node-name=d,file=f,size=512',
    ],
    '/a.img',
    ['-blockdev', 'driver=file,filename=/a.img,node-name=f', '-blockdev', 'driver=raw,node-name=d,file=f'],
  ],
  [
    ['-blockdev', '{"driver":"raw","size":512,"file":{"driver":"host_device","filename":"/dev/vg/a"},"node-name":"d"}'],
    '/a.img',
    ['-blockdev', '{"driver":"raw","file":{"driver":"file","filename":"/a.img"},"node-name":"d"}'],
  ],
  [
    ['-blockdev', 'driver=file,filename=/dev/vg/a,node-name=f', '-blockdev', 'driver=raw,node-name=d,file=f'],
    '/dev/vg/b',
    [
      '-blockdev',
      'driver=host_device,filename=/dev/vg/b,node-name=f',
      '-blockdev',
      'driver=raw,node-name=d,file=f,size=1024',
    ],
  ],
  [
    ['-blockdev', '{"driver":"qcow2","file":{"driver":"file","filename":"/dev/vg/a"},"node-name":"d"}'],
    '/dev/vg/b',
    [
      '-blockdev',
      '{"driver":"raw","file":{"driver":"host_device","filename":"/dev/vg/b"},"node-name":"d","size":1024}',
    ],
  ],
  [['-drive', 'file=/dev/vg/a,format=raw,size=9'], '/dev/vg/b', ['-drive', 'file=/dev/vg/b,format=raw,size=1024']],
])('%j, put on %s, is opened as what that is, and shown as large as it was', (given, to, wanted) => {
  for (const raw of [true, false]) {
    const disk = { from: '/dev/vg/a', to, raw, ...(to.startsWith('/dev/') && { shownBytes: 1024 }) };
    // A size that the source has said stays true of the file that arrives.
    if (raw || disk.shownBytes !== undefined || !given.join().includes('size'))
      if (raw || !given.join().includes('qcow2'))
        expect(sorted(relocate(['qemu', ...given], [disk], '/run').slice(1))).toEqual(sorted(wanted));
  }
});

test('a size that was said of a larger device is not said of a file that is as large as the disk', () => {
  const disk = { from: '/dev/vg/a', to: '/a.img', raw: false, sizeBytes: 1024 };
  const nodes = ['-blockdev', 'driver=host_device,filename=/dev/vg/a,node-name=f', '-blockdev'];
  expect(relocate(['qemu', '-drive', 'file=/dev/vg/a,format=raw,size=1024'], [disk], '/run').slice(1)).toEqual([
    '-drive',
    'file=/a.img,format=raw',
  ]);
  expect(relocate(['qemu', ...nodes, '{"driver":"raw","file":"f","size":1024}'], [disk], '/run').slice(1)).toEqual([
    '-blockdev',
    'driver=file,filename=/a.img,node-name=f',
    '-blockdev',
    '{"driver":"raw","file":"f"}',
  ]);
});

/** Words of an option in order: it means the same. */
function sorted(words: readonly string[]): string[] {
  return words.map((word) => (word.startsWith('{') ? word : word.split(',').sort().join(',')));
}

test('a comma in a path stays part of the path', () => {
  const moved = relocate(
    ['qemu', '-drive', 'file=/v/a,,b.img,format=raw', '-drive', 'file=/v/a,format=raw'],
    [{ from: '/v/a,b.img', to: '/d/c,d.img', raw: true }],
    '/run',
  );
  expect(moved).toEqual(['qemu', '-drive', 'file=/d/c,,d.img,format=raw', '-drive', 'file=/v/a,format=raw']);
  expect(diskPathsOf(moved)).toEqual(['/d/c,d.img', '/v/a']);
});

test('what a running QEMU has decided is written down: -hda and all that names no format', () => {
  const formats: Record<string, string> = { '/a.img': 'qcow2', '/c.img': 'raw' };
  expect(
    nameFormats(
      [
        'qemu',
        '-hda',
        '/a.img',
        '-drive',
        'file=/b.img,format=raw',
        '-drive',
        'file=/c.img',
        '-cdrom',
        '/d.iso',
        '-hdb',
        '/e',
      ],
      (path) => formats[path],
    ).slice(1),
  ).toEqual([
    ...['-drive', 'file=/a.img,index=0,media=disk,format=qcow2', '-drive', 'file=/b.img,format=raw'],
    ...['-drive', 'file=/c.img,format=raw', '-cdrom', '/d.iso', '-hdb', '/e'],
  ]);
});

test('names the machine by its version, whatever alias it was started with', () => {
  expect(pinMachine(['qemu', '-M', 'q35,accel=kvm'], 'pc-q35-10.0')).toEqual(['qemu', '-M', 'pc-q35-10.0,accel=kvm']);
  expect(pinMachine(['qemu', '-machine', 'type=q35,usb=off'], 'pc-q35-10.0')).toEqual([
    'qemu',
    '-machine',
    'pc-q35-10.0,usb=off',
  ]);
  expect(pinMachine(['qemu'], 'pc-i440fx-10.0')).toEqual(['qemu', '-machine', 'pc-i440fx-10.0']);
});

// QEMU takes them together, and of their types the last.
test('names it once where a command has several options for the machine', () => {
  const several = ['qemu', '-machine', 'usb=off', '-m', '64', '--machine', 'pc', '-M', 'q35,accel=kvm'];
  expect(machineOf(several)).toBe('q35');
  const pinned = ['qemu', '-machine', 'pc-q35-10.0,usb=off', '-m', '64', '-M', 'accel=kvm'];
  expect(pinMachine(several, 'pc-q35-10.0')).toEqual(pinned);
  expect(machineOf(['qemu', '-machine', 'usb=off'])).toBeUndefined();
  expect(machineOf(['qemu', '-M', 'type=pc,usb=off'])).toBe('pc');
});

test('a guest that arrives waits, paused; every guest has a monitor of the agent’s and one of anybody’s', () => {
  const places = runPlaces('/run/x');
  expect(ownArguments(places, 'incoming')).toEqual(
    expect.arrayContaining(['-S', '-incoming', 'unix:/run/x/incoming.sock']),
  );
  expect(ownArguments(places, 'run').filter((word) => word === '-qmp')).toHaveLength(2);
});

test.each([
  [['-drive', 'file=/a.img,if=virtio,format=qcow2'], 'qcow2'],
  [['-drive', 'format=raw,file=/a.img'], 'raw'],
  [['-drive', 'file=/a.img,if=virtio'], undefined],
  [['-hda', '/a.img'], undefined],
  [['-blockdev', 'driver=file,filename=/a.img,node-name=f', '-blockdev', 'driver=qcow2,file=f,node-name=d'], 'qcow2'],
  [['-blockdev', '{"driver":"file","filename":"/a.img","node-name":"f"}', '-device', 'virtio-blk,drive=f'], 'raw'],
  [['-blockdev', '{"driver":"qcow2","file":{"driver":"file","filename":"/a.img"},"node-name":"d"}'], 'qcow2'],
  [['-blockdev', 'driver=vmdk,file.driver=file,file.filename=/a.img,node-name=d'], 'vmdk'],
])('%j names the form %s', (command, expected) => {
  expect(namedFormat(['qemu', ...command], '/a.img')).toBe(expected);
});

test('goes by what the command names, never by what a file begins with: a guest can write that to a raw disk', async () => {
  const path = join(temporaryFolder(), 'disk');
  const header = Buffer.alloc(512);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeBigUInt64BE(2n ** 30n, 24);
  writeFileSync(path, header);
  for (const unnamed of [
    ['-hda', path],
    ['-drive', `file=${path}`],
  ])
    await expect(qcow2SizeBytes(['qemu', ...unnamed], path)).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringContaining('format=raw') as unknown,
    });
  expect(await qcow2SizeBytes(['qemu', '-drive', `file=${path},format=qcow2`], path)).toBe(2 ** 30);
  expect(await qcow2SizeBytes(['qemu', '-drive', `file=${path},format=raw`], path)).toBeUndefined();
  header.writeUInt32BE(1, 60);
  writeFileSync(path, header);
  expect(await qcow2SizeBytes(['qemu', '-drive', `file=${path},format=qcow2`], path)).toBeUndefined();
});

test('two dashes are one, and a word alone is the first disk, as QEMU has it', () => {
  const own = guestOwn(['qemu', '--drive', 'file=/a.img,format=raw', '--qmp', 'unix:/q', '--machine', 'q35', '/b.img']);
  expect(own).toEqual(['qemu', '-drive', 'file=/a.img,format=raw', '-machine', 'q35', '-hda', '/b.img']);
  expect(diskPathsOf(own)).toEqual(['/a.img', '/b.img']);
  expect(pinMachine(own, 'pc-q35-10.0').filter((word) => word.endsWith('machine'))).toEqual(['-machine']);
});
