/** What a guest's QEMU command may hold: what leads out of the guest is refused by name, whatever way it is written. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Allowance, OWN_HOST } from '../../src/hypervisor/qemu/allowance';
import { assertAllowed, objectionToCommand, programOf } from '../../src/hypervisor/qemu/allowed-options';
import { arrivingAllowance } from '../../src/hypervisor/qemu/arriving-allowance';
import { temporaryFolder } from '../helpers/data';
import { DISK, HOSTILE, LEGAL, QEMU, RUN } from '../helpers/guest-words';

const HERE = arrivingAllowance(
  {
    qemuFolder: '',
    folders: ['/guests', '/usr/share/OVMF'],
    networks: ['tap7', 'br7', 'br-web=bridge:vmbr3', 'br-x=script:/host/ifup', 'br-y=helper:/host/helper:vmbr4'],
    consolePorts: [{ address: '127.0.0.1', first: 5900, last: 5909 }],
    guestPorts: [{ address: '127.0.0.1', first: 2200, last: 2209 }],
  },
  [DISK],
  RUN,
);

function objection(args: readonly string[], allowance: Allowance = HERE): string | undefined {
  return objectionToCommand([QEMU, ...args], allowance);
}

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

test.each(LEGAL)('%s %s … is a guest’s to have', (...args) => {
  expect(objection(args)).toBeUndefined();
  expect(objection(args, OWN_HOST)).toBeUndefined();
});

test('the operator of a host may name any file, tap, port and network script of it, and still no other program, socket or guessed format', () => {
  expect(
    objection(['-vnc', '127.0.0.1:1', '-drive', 'file=/vms/web.img,format=raw', '-kernel', '/boot/k'], OWN_HOST),
  ).toBe(undefined);
  for (const [args] of HOSTILE.filter(([[flag = '']]) =>
    /netdev|plugin|incoming|hda|virtfs|set|readconfig|device/.test(flag),
  ))
    if (!/eth0|br-secret|br-web|"filename"|script=|helper=|hostfwd=(tcp|udp)|ifname=tap7$|^-nic,tap/.test(args.join()))
      expect([args, objection(args, OWN_HOST)]).not.toEqual([args, undefined]);
});

test('of /dev the operator too may name nothing but block devices that are there', () => {
  for (const path of ['/dev/no-such-device', '/dev/null'])
    expect(objection(['-drive', `file=${path},format=raw`], OWN_HOST)).toMatch(/no block device/);
  expect(objection(['-drive', 'file=/dev/shm/web.img,format=raw'], OWN_HOST)).toBeUndefined();
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
