/** Every option that names a file names it by its path on the host once its QEMU has been adopted; a relative one is not defined. */
import * as fc from 'fast-check';
import { OWN_HOST } from '../../src/hypervisor/qemu/allowance';
import { objectionToCommand } from '../../src/hypervisor/qemu/allowed-options';
import { guestOwn } from '../../src/hypervisor/qemu/guest-command';
import { diskPathsOf, nameFormats } from '../../src/hypervisor/qemu/guest-disks';
import { withHostPaths } from '../../src/hypervisor/qemu/host-paths';
import { optionWords } from '../../src/hypervisor/qemu/option-words';

const quoteComma = (path: string): string => path.replaceAll(',', ',,');

/** As `cd /vms` and a QEMU's own reading make it. */
const IN_VMS = (path: string): string => (path.startsWith('/') ? path : `/vms/${path}`);

/** Each way to name a file that a guest may have. */
const WAYS: readonly (readonly [string, (path: string) => readonly string[]])[] = [
  ['-drive', (path) => ['-drive', `file=${quoteComma(path)},format=raw`]],
  ['--drive', (path) => ['--drive', `format=raw,file=${quoteComma(path)},if=virtio`]],
  ['-drive file.filename', (path) => ['-drive', `file.driver=file,file.filename=${quoteComma(path)},format=raw`]],
  ['-drive, read only', (path) => ['-drive', `file=${quoteComma(path)},format=raw,readonly`]],
  ['-blockdev', (path) => ['-blockdev', `driver=file,node-name=f,filename=${quoteComma(path)}`]],
  [
    '-blockdev, nested',
    (path) => ['-blockdev', `driver=raw,node-name=n,file.driver=file,file.filename=${quoteComma(path)}`],
  ],
  ['-blockdev, JSON', (path) => ['-blockdev', JSON.stringify({ driver: 'file', 'node-name': 'f', filename: path })]],
  [
    '-blockdev, nested JSON',
    (path) => [
      '-blockdev',
      JSON.stringify({ driver: 'raw', 'node-name': 'n', file: { driver: 'file', filename: path } }),
    ],
  ],
  ['-hda', (path) => ['-hda', path]],
  ['-hdd', (path) => ['-hdd', path]],
  ['positional', (path) => [path]],
  ['-cdrom', (path) => ['-cdrom', path]],
  ['-kernel', (path) => ['-kernel', path]],
  ['--initrd', (path) => ['--initrd', path]],
  ['-dtb', (path) => ['-dtb', path]],
  ['-bios', (path) => ['-bios', path]],
  ['-serial file', (path) => ['-serial', `file:${path}`]],
  ['-serial unix', (path) => ['-serial', `unix:${path},server=on,wait=off`]],
  ['-debugcon', (path) => ['-debugcon', `file:${path}`]],
  ['-chardev file', (path) => ['-chardev', `file,id=c,path=${quoteComma(path)}`]],
  ['-chardev socket', (path) => ['-chardev', `socket,id=c,path=${quoteComma(path)},server=on,wait=off`]],
  ['-chardev, its log', (path) => ['-chardev', `null,id=c,logfile=${quoteComma(path)}`]],
  ['-vnc', (path) => ['-vnc', `unix:${path}`]],
];
const PROGRAM = 'qemu-system-x86_64';

describe.each(WAYS)('%s', (_way, name) => {
  const given = (path: string): string[] =>
    nameFormats(withHostPaths(guestOwn([PROGRAM, ...name(path)]), IN_VMS), () => 'raw');

  test('names the file on the host', () => {
    const own = given('sub/a.bin');
    expect(own.join(' ')).toContain('/vms/sub/a.bin');
    expect(own.join(' ')).not.toMatch(/(?<!\/vms\/)sub\/a\.bin/);
    expect(objectionToCommand(own, OWN_HOST)).toBeUndefined();
  });

  test('an absolute path stays', () => {
    expect(given('/x/a.bin').join(' ')).toContain('/x/a.bin');
    expect(given('/x/a.bin').join(' ')).not.toContain('/vms');
  });

  test('is not defined by a relative path', () => {
    const own = nameFormats(guestOwn([PROGRAM, ...name('a.bin')]), () => 'raw');
    expect(objectionToCommand(own, OWN_HOST)).toMatch(
      /"a\.bin" is no absolute path; name the file by its absolute path/,
    );
  });
});

test('what only starts a QEMU or speaks to it is no part of a guest, wherever it lies', () => {
  for (const args of [
    ['-qmp', 'unix:a.qmp,server=on,wait=off'],
    ['--qmp', 'unix:a.qmp,server=on,wait=off'],
    ['-pidfile', 'a.pid'],
    ['-monitor', 'unix:a.mon,server=on,wait=off'],
    ['-incoming', 'unix:a.in'],
  ])
    expect(guestOwn([PROGRAM, ...args])).toEqual([PROGRAM]);
});

test('no option of any command keeps a relative path of a host', () => {
  const letters = fc.stringMatching(/^[a-z][a-z0-9_.]{0,8}(\/[a-z][a-z0-9]{0,5})?\.img$/);
  const option = fc.tuple(fc.constantFrom(...WAYS), letters);
  fc.assert(
    fc.property(fc.array(option, { minLength: 1, maxLength: 6 }), (options) => {
      const command = ['./bin/qemu-system-x86_64', ...options.flatMap(([[, name], path]) => name(path))];
      const own = nameFormats(withHostPaths(guestOwn(command), IN_VMS), () => 'raw');
      expect(own[0]).toBe('/vms/./bin/qemu-system-x86_64');
      const words = optionWords(own.slice(1)).map(({ value = '' }) => value.replaceAll(/\/vms\/[a-z0-9_./]+/g, ''));
      expect(words.join('\n')).not.toContain('.img');
      expect(diskPathsOf(own).every((path) => path.startsWith('/vms/'))).toBe(true);
    }),
  );
});

test('a comma in a path stays one', () => {
  const own = withHostPaths([PROGRAM, '-drive', 'file=a,,b.img,format=raw'], IN_VMS);
  expect(own).toEqual([PROGRAM, '-drive', 'file=/vms/a,,b.img,format=raw']);
});
