/** Images are read and made below the folders that they may lie in, wherever a link leads that somebody has put there. */
import { mkdirSync, readdirSync, renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { sha256, temporaryFolder, writeImage } from '../helpers/data';
import { diskLab, onB, SIZE } from '../helpers/disk-lab';
import { moveVm, prepareMove } from '../helpers/moves';

test('an image that is a link out of the image folder is not read', async () => {
  const lab = await diskLab();
  await moveVm('m1', 'vm', lab.a, lab.b);
  const before = sha256(lab.disk.replace('disk.img', 'disk.img.dwcp-baseline'));
  writeImage(join(lab.folder, 'secret'), SIZE, 7);
  renameSync(onB(lab), `${onB(lab)}.away`);
  symlinkSync(join(lab.folder, 'secret'), onB(lab));
  await expect(prepareMove('m2', 'vm', lab.b, lab.a)).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
  expect(sha256(lab.disk.replace('disk.img', 'disk.img.dwcp-baseline'))).toBe(before);
});

test('nothing is made where the folder of a VM’s images leads elsewhere', async () => {
  const lab = await diskLab();
  const out = join(lab.folder, 'out');
  mkdirSync(out);
  mkdirSync(join(lab.b.dataDir, 'images'), { recursive: true });
  symlinkSync(out, join(lab.b.dataDir, 'images', 'vm'));
  await expect(moveVm('m1', 'vm', lab.a, lab.b)).rejects.toMatchObject({ code: 'IMAGE_UNWRITABLE' });
  expect(readdirSync(out)).toEqual([]);
});

test('a folder that imageRoots names is as good', async () => {
  const folder = temporaryFolder();
  const out = join(folder, 'out');
  const lab = await diskLab({ folder, onB: { imageRoots: `${out}, ${join(folder, 'more')}` } });
  mkdirSync(out);
  mkdirSync(join(lab.b.dataDir, 'images'), { recursive: true });
  symlinkSync(out, join(lab.b.dataDir, 'images', 'vm'));
  const before = sha256(lab.disk);
  await moveVm('m1', 'vm', lab.a, lab.b);
  expect(sha256(join(out, 'vda.img'))).toBe(before);
});

test('a VM whose disk lies outside of imageRoots does not leave', async () => {
  const lab = await diskLab({ onA: { imageRoots: '/srv/images' } });
  await expect(prepareMove('m1', 'vm', lab.a, lab.b)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});
