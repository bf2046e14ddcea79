/** Where disks come to lie, as operators write it. */
import { parseDiskMap, placeByTemplate } from '../../src/model/disk-map';
import { compileMigrationOptions } from '../../src/model/options';

test('a map names a place for each disk, and nothing is guessed', () => {
  expect([...parseDiskMap('')]).toEqual([]);
  expect([...parseDiskMap('vda=/dev/vg0/web-7, vdb=file')]).toEqual([
    ['vda', '/dev/vg0/web-7'],
    ['vdb', 'file'],
  ]);
});

test.each([
  'vda',
  '=/dev/vg0/web',
  'vda=',
  'vda=web',
  'vda=../web',
  'vda=/dev/vg0/../sda',
  'vda=/dev//sda',
  'vda=/dev/vg0/./web',
  'vda=/dev/vg0/..',
  'vda=/dev/vg0/',
  'v/da=/dev/vg0/web',
  'vda=/dev/vg0/web\n',
  'vda=/dev/vg0/\u0000web',
  `vda=/${'x'.repeat(2000)}`,
])('%j is refused, and by the options of a migration too, with an example', (entry) => {
  for (const text of [entry, `vdb=file,${entry}`]) {
    if (text.trim() !== text) continue;
    expect(() => parseDiskMap(text)).toThrow(/such as vda=\/dev\/vg0\/web/);
    expect(() => compileMigrationOptions({ diskMap: text })).toThrow(RangeError);
  }
});

test('two disks on one place, and one disk twice, are refused', () => {
  expect(() => parseDiskMap('vda=/dev/a,vdb=/dev/a')).toThrow(/two disks/);
  expect(() => parseDiskMap('vda=/dev/a,vda=/dev/b')).toThrow(/twice/);
});

test('a template gives each disk of each VM a place of its own, or is refused', () => {
  expect(placeByTemplate('/dev/vg0/{vm}-{disk}', 'web', 'vda')).toBe('/dev/vg0/web-vda');
  expect(placeByTemplate('/srv/{vm}/{disk}.img', 'web', 'vda')).toBe('/srv/web/vda.img');
  for (const template of [
    '/dev/vg0/{disk}',
    '/dev/vg0/{name}',
    'vg0/{vm}',
    '/dev/{vm}/..',
    '/dev/vg0/{constructor}{vm}',
  ])
    expect(() => placeByTemplate(template, 'web', 'vda')).toThrow(RangeError);
});
