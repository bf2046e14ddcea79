/** Entries of the table of guests: who else is at work in a guest's QEMU, and what happens while it is on its way. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../../src/system/wait';
import { ends, type GuestShape, ide, moved, type OnItsWay, pc, refused, type ShapePlaces } from './shape';

/** Its rounds last for a while. */
const SLOWLY = { bandwidthLimit: 400_000 };
const SOON = { everyMs: 2, withinMs: 60_000 };
const withSerial = ({ disk, folder }: ShapePlaces, ...more: readonly string[]): string[] =>
  pc(...ide(disk, ',id=d0'), ...more).map((word) => (word === 'null' ? `file:${join(folder, 'serial')}` : word));
const plain = ({ disk }: ShapePlaces): string[] => pc(...ide(disk, ',id=d0'));

function presses(key: string): (guest: OnItsWay) => Promise<void> {
  return async ({ say, untilSent }) => {
    await untilSent();
    await say('send-key', { keys: [{ type: 'qcode', data: key }] });
  };
}

function says(...commands: readonly string[]): (guest: OnItsWay) => Promise<void> {
  return async ({ say, untilSent }) => {
    await untilSent();
    for (const command of commands) await say(command);
  };
}

export const MOMENT_SHAPES: readonly GuestShape[] = [
  {
    name: 'a backup that goes on',
    ...{ field: 16, command: plain, expected: refused(/nightly/) },
    said: ({ folder }) => [
      [
        'drive-backup',
        { 'job-id': 'nightly', device: 'd0', target: `${folder}/backup.img`, sync: 'full', format: 'raw', speed: 1 },
      ],
    ],
  },
  {
    name: 'somebody else’s NBD server',
    ...{ field: 16, quick: true, command: plain, expected: refused(/NBD server/) },
    said: ({ folder }) => [['nbd-server-start', { addr: { type: 'unix', data: { path: `${folder}/theirs.sock` } } }]],
  },
  {
    name: 'somebody else’s export',
    ...{ field: 16, expected: refused(/export pull/) },
    command: ({ disk }) =>
      pc(
        ...['-blockdev', `driver=file,filename=${disk},node-name=s`, '-blockdev', 'driver=raw,file=s,node-name=d'],
        ...['-device', 'ide-hd,drive=d'],
      ),
    said: ({ folder }) => [
      ['nbd-server-start', { addr: { type: 'unix', data: { path: `${folder}/theirs.sock` } } }],
      ['block-export-add', { type: 'nbd', id: 'pull', 'node-name': 'd', name: 'pull' }],
    ],
  },
  {
    name: 'somebody else’s dirty bitmap in memory',
    ...{ field: 16, command: plain, expected: moved },
    said: () => [['block-dirty-bitmap-add', { node: 'd0', name: 'theirs' }]],
  },
  {
    name: 'paused before its move',
    ...{ field: 28, command: plain, stopsFirst: true, left: 'not running' },
    expected: refused(/paused/, 'GUEST_PAUSED'),
  },
  {
    name: 'powers itself off on its way',
    ...{ field: 18, guest: 'keys', options: SLOWLY, meanwhile: presses('p'), left: 'not running' },
    command: (at) => withSerial(at),
    expected: ends(/powered itself off/, 'GUEST_POWERED_OFF'),
  },
  {
    name: 'powers itself off on its way, -no-shutdown',
    ...{ field: 18, guest: 'keys', options: SLOWLY, meanwhile: presses('p'), left: 'not running' },
    command: (at) => withSerial(at, '-no-shutdown'),
    expected: ends(/powered itself off/, 'GUEST_POWERED_OFF'),
  },
  {
    name: 'reset on its way, -no-reboot -no-shutdown',
    ...{ field: 18, options: SLOWLY, meanwhile: says('system_reset'), left: 'not running' },
    command: (at) => [...plain(at), '-no-reboot', '-no-shutdown'],
    expected: ends(/reset/, 'GUEST_POWERED_OFF'),
  },
  {
    name: 'restarts on its way',
    ...{ field: 18, guest: 'keys', options: SLOWLY, meanwhile: presses('r'), expected: moved },
    command: (at) => withSerial(at),
  },
  {
    name: 'sleeps on its way',
    ...{ field: 28, guest: 'keys', options: SLOWLY, meanwhile: presses('s'), left: 'not running' },
    command: (at) => withSerial(at),
    expected: ends(/sleeps/, 'GUEST_PAUSED'),
  },
  {
    name: 'stopped by its operator on its way',
    ...{ field: 28, command: plain, options: SLOWLY, meanwhile: says('stop'), left: 'not running' },
    expected: ends(/paused|stopped/, 'GUEST_PAUSED'),
  },
  {
    name: 'a block job begun on its way',
    ...{ field: 16, command: plain, options: SLOWLY, expected: ends(/nightly/, 'GUEST_REFUSED') },
    meanwhile: async ({ say, untilSent }, { folder }) => {
      await untilSent();
      const job = {
        'job-id': 'nightly',
        device: 'd0',
        target: `${folder}/b.img`,
        sync: 'full',
        format: 'raw',
        speed: 1,
      };
      await say('drive-backup', job);
    },
  },
  {
    name: 'an external snapshot on its way',
    ...{ field: 9, command: plain, options: SLOWLY, expected: ends(/layer\.qcow2|snapshot/, 'GUEST_REFUSED') },
    meanwhile: async ({ say, untilSent }, { folder }) => {
      await untilSent();
      await say('blockdev-snapshot-sync', { device: 'd0', 'snapshot-file': `${folder}/layer.qcow2`, format: 'qcow2' });
    },
  },
  {
    name: 'its disk is held at the destination by another program',
    ...{ field: 19, command: plain, options: { bandwidthLimit: 1_500_000 }, expected: ends(/lock/, 'GUEST_REFUSED') },
    meanwhile: async ({ destination, diskThere }, { common }) => {
      if (!(await until(() => existsSync(destination.seen(diskThere)), SOON))) throw new Error('it has no disk there');
      destination.spawn('qemu-nbd', '-k', join(common, 'nbd'), '-t', '-f', 'raw', diskThere);
    },
  },
];
