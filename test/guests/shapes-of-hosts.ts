/** Entries of the table of guests: what leads out of a guest into its host. Networks, ports, consoles, helpers, as whom it runs. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { whichTool } from '../../src/cli/demo/tools';
import type { VmRecord } from '../../src/store/vm-registry';
import type { HostBox } from './host-box';
import { type GuestShape, ide, machine, moved, movedOrRefused, pc, refused, type ShapePlaces } from './shape';

const NOBODY = 65_534;
/** As a manager of guests hands one down: TUNSETIFF, IFF_TAP | IFF_NO_PI. */
const OPENS_TAP =
  'BEGIN { $^F = 9 } $r = pack("a16sx22", "tap7", 0x1002); open(T, "+<", "/dev/net/tun") && ioctl(T, 0x400454ca, $r) or die $!; exec @ARGV';
const TAP = ['-netdev', 'tap,id=n0,ifname=tap7,script=no,downscript=no', '-device', 'virtio-net-pci,netdev=n0'];
const withTap = ({ disk }: ShapePlaces): string[] => pc(...TAP, ...ide(disk));
const makeTap = (_: ShapePlaces, source: HostBox): void => source.link('tap7', 'tap');

/** The bridge that QEMU's own helper joins. */
function makeBridge({ common }: ShapePlaces, source: HostBox): void {
  source.link('br-web', 'type', 'bridge');
  mkdirSync(join(common, 'qemu'));
  writeFileSync(join(common, 'qemu', 'bridge.conf'), 'allow br-web\n');
  source.run('mkdir', '-p', '/etc/qemu');
  source.bind(join(common, 'qemu'), '/etc/qemu');
}

const withBridge = ({ disk }: ShapePlaces): string[] =>
  pc('-netdev', 'bridge,id=n0,br=br-web', '-device', 'virtio-net-pci,netdev=n0', ...ide(disk));

function forNobody({ disk, folder, common }: ShapePlaces): void {
  chmodSync(common, 0o777);
  chownSync(folder, NOBODY, NOBODY);
  chownSync(disk, NOBODY, NOBODY);
  // All that leads there is to be passed.
  for (let at = folder; at !== '/tmp' && at !== '/'; at = join(at, '..'))
    if (at !== folder) execFileSync('chmod', ['o+x', at]);
}

/** @returns what is wrong where none of its streams is a place of its run folder */
function streamsIn(count: number): (record: VmRecord) => string | undefined {
  return ({ guest }) => {
    const words = (guest?.command ?? []).join('\n');
    const places = new Set(
      [...words.matchAll(/(?:path=|unix:|file:)(\/[^,\n]*\/run\/[^,\n]*)/g)].map(([, path]) => path),
    );
    return places.size === count ? undefined : `it has ${places.size} streams in its run folder: ${[...places].join()}`;
  };
}

function serial(stream: string): (at: ShapePlaces) => string[] {
  return ({ disk, folder }) => pc(...ide(disk)).map((word) => (word === 'null' ? stream.replace('~', folder) : word));
}

export const HOST_SHAPES: readonly GuestShape[] = [
  {
    name: 'a tap that the destination has not',
    ...{ field: 1, make: makeTap, command: withTap, expected: refused(/tap7/) },
  },
  {
    name: 'a tap that is in no bridge at the destination',
    ...{ field: 1, make: makeTap, command: withTap, expected: refused(/tap7.*bridge/) },
    there: (b) => b.link('tap7', 'tap'),
  },
  {
    name: 'a tap in a bridge at both',
    ...{ field: 1, make: makeTap, command: withTap, expected: moved },
    there: (b) => {
      b.link('br-web', 'type', 'bridge');
      b.link('tap7', 'tap');
      b.run('ip', 'link', 'set', 'tap7', 'master', 'br-web');
    },
  },
  {
    name: 'a tap that is taken at the destination',
    ...{ field: 1, make: makeTap, command: withTap, expected: movedOrRefused(/tap7/) },
    there: async (b) => {
      b.link('br-web', 'type', 'bridge');
      b.link('tap7', 'tap');
      b.run('ip', 'link', 'set', 'tap7', 'master', 'br-web');
      const args = ['-M', 'none', '-display', 'none', '-S', '-netdev', 'tap,id=n,ifname=tap7,script=no,downscript=no'];
      b.spawn('qemu-system-x86_64', ...args);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    },
  },
  {
    name: 'a bridge that the destination has not',
    ...{ field: 1, make: makeBridge, command: withBridge, expected: refused(/br-web/) },
  },
  {
    name: 'a network that is not among those of the destination',
    ...{ field: 1, expected: refused(/"tap9"|tap9/) },
    make: (_, source) => source.link('tap9', 'tap'),
    command: (at) => withTap(at).map((word) => word.replace('tap7', 'tap9')),
  },
  {
    name: 'a tap with QEMU’s own script',
    ...{ field: 1, expected: movedOrRefused(/script/) },
    command: ({ disk }) => pc('-netdev', 'tap,id=n0,ifname=tap7', '-device', 'e1000,netdev=n0', ...ide(disk)),
  },
  {
    name: 'a tap by descriptor',
    ...{ field: 1, begun: 'adopted', make: makeTap, expected: movedOrRefused(/descriptor|fd/) },
    through: () => ['perl', '-e', OPENS_TAP],
    command: ({ disk }) => pc('-netdev', 'tap,id=n0,fd=3', '-device', 'virtio-net-pci,netdev=n0', ...ide(disk)),
  },
  {
    name: 'a VNC display whose port is taken',
    ...{ field: 2, quick: true, expected: movedOrRefused(/590\d|vnc/) },
    command: ({ disk }) => pc('-vnc', '127.0.0.1:7', ...ide(disk)),
    there: (b) => b.take(5907),
  },
  {
    name: 'a VNC socket',
    ...{ field: 17, expected: moved, arrived: streamsIn(1) },
    command: ({ disk, folder }) => pc('-vnc', `unix:${folder}/web.vnc`, ...ide(disk)),
  },
  ...(
    [
      ['a forwarded port', ['-nic', 'user,hostfwd=tcp:127.0.0.1:2222-:22'], /2222|hostfwd/],
      ['a serial line over telnet', ['-serial', 'telnet:127.0.0.1:4444,server=on,wait=off'], /telnet|4444/],
      ['a debugger’s port', ['-gdb', 'tcp::1234'], /gdb/],
      ['SPICE', ['-spice', 'port=5930,disable-ticketing=on'], /spice/i],
    ] as const
  ).map(
    ([name, words, says]): GuestShape => ({
      name,
      ...{ field: 2, expected: movedOrRefused(says) },
      command: ({ disk }) => pc(...ide(disk), ...words),
    }),
  ),
  {
    name: '-nographic with its serial line on stdio',
    ...{ field: 17, expected: moved, arrived: streamsIn(1) },
    command: ({ disk }) => [
      ...['qemu-system-x86_64', '-accel', 'tcg', '-m', '64', '-nographic', '-serial', 'mon:stdio', '-nic', 'none'],
      ...ide(disk),
    ],
  },
  {
    name: '-nographic alone',
    ...{ field: 17, expected: moved, arrived: streamsIn(1) },
    command: ({ disk }) => [
      'qemu-system-x86_64',
      '-accel',
      'tcg',
      '-m',
      '64',
      '-nographic',
      '-nic',
      'none',
      ...ide(disk),
    ],
  },
  {
    name: 'a log in a folder that the source alone has',
    ...{ field: 17, expected: moved },
    make: ({ folder }) => mkdirSync(join(folder, 'log')),
    command: ({ disk, folder }) =>
      pc(
        ...['-chardev', `socket,id=c,path=${folder}/c,server=on,wait=off,logfile=${folder}/log/c.log`],
        ...['-device', 'isa-serial,chardev=c', ...ide(disk)],
      ),
  },
  {
    name: 'two sockets of one name',
    ...{ field: 17, quick: true, expected: moved, arrived: streamsIn(2) },
    make: ({ folder }) => ['serial', 'qga'].forEach((name) => mkdirSync(join(folder, name))),
    command: ({ disk, folder }) =>
      pc(
        ...['serial', 'qga'].flatMap((name) => [
          '-chardev',
          `socket,id=${name},path=${folder}/${name}/sock,server=on,wait=off`,
        ]),
        ...[
          '-device',
          'isa-serial,chardev=serial',
          '-device',
          'virtio-serial',
          '-device',
          'virtserialport,chardev=qga',
        ],
        ...ide(disk),
      ),
  },
  {
    name: 'a serial line that is called as our monitor',
    ...{ field: 17, command: serial('unix:~/monitor.sock,server=on,wait=off'), expected: moved, arrived: streamsIn(1) },
  },
  {
    name: 'a client’s socket, which nobody serves at the destination',
    ...{ field: 10, begun: 'adopted', expected: movedOrRefused(/server=on|listens/) },
    make: ({ folder }, source) => {
      const text = `require('net').createServer().listen(${JSON.stringify(`${folder}/x.sock`)})`;
      source.spawn(process.execPath, '-e', text);
      for (let looks = 0; looks < 200 && !existsSync(`${folder}/x.sock`); looks += 1) execFileSync('sleep', ['0.02']);
    },
    command: ({ disk, folder }) =>
      pc('-chardev', `socket,id=c0,path=${folder}/x.sock`, '-device', 'isa-serial,chardev=c0', ...ide(disk)),
  },
  {
    name: 'a TPM of swtpm’s',
    ...{ field: 10, expected: movedOrRefused(/tpm/i) },
    make: ({ folder }, source) => {
      if (whichTool('swtpm') === undefined) return;
      mkdirSync(join(folder, 'tpm'));
      const control = ['--ctrl', `type=unixio,path=${folder}/swtpm.sock`];
      source.spawn('swtpm', 'socket', '--tpm2', '--tpmstate', `dir=${folder}/tpm`, ...control);
      for (let looks = 0; looks < 200 && !existsSync(`${folder}/swtpm.sock`); looks += 1)
        execFileSync('sleep', ['0.02']);
    },
    command: ({ disk, folder }) =>
      machine(
        'q35',
        ...['-chardev', `socket,id=chrtpm,path=${folder}/swtpm.sock`, '-tpmdev', 'emulator,id=tpm0,chardev=chrtpm'],
        ...['-device', 'tpm-crb,tpmdev=tpm0', ...ide(disk)],
      ),
  },
  {
    name: 'a folder by virtiofsd',
    ...{ field: 10, expected: movedOrRefused(/vhost|server=on/) },
    command: ({ disk, folder }) =>
      pc(
        ...['-chardev', `socket,id=fs,path=${folder}/fs.sock`, '-device', 'vhost-user-fs-pci,chardev=fs,tag=t'],
        ...ide(disk),
      ),
  },
  {
    name: 'a QEMU of another user',
    ...{ field: 14, begun: 'adopted', make: forNobody, expected: movedOrRefused(/nobody|65534|Permission/) },
    through: () => ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
    command: ({ disk }) => pc(...ide(disk)),
  },
  {
    name: '-run-with user=nobody',
    ...{ field: 14, begun: 'adopted', make: forNobody, expected: movedOrRefused(/run-with/) },
    command: ({ disk }) => pc(...ide(disk), '-run-with', 'user=nobody'),
  },
  {
    name: '-sandbox on',
    ...{ field: 14, begun: 'adopted', expected: moved },
    command: ({ disk }) =>
      pc(...ide(disk), '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'),
  },
  {
    name: 'started with -daemonize and a pidfile',
    ...{ field: 14, begun: 'adopted', expected: moved },
    command: ({ disk, folder }) => pc(...ide(disk), '-daemonize', '-pidfile', join(folder, 'pid')),
  },
  {
    name: 'a monitor that another program holds',
    ...{ field: 15, begun: 'started', quick: true, expected: refused(/holds its monitor|holds that monitor/) },
    command: ({ disk }) => pc(...ide(disk)),
    here: async (source, { folder, vmId }) => {
      const path = join(folder, '..', '..', 'a', 'run', vmId, 'qmp.sock');
      const text = `require('net').connect(${JSON.stringify(path)}).on('data', () => console.log('held'))`;
      const holder = source.spawn(process.execPath, '-e', text);
      await new Promise((resolve) => holder.stdout?.once('data', resolve));
    },
  },
];
