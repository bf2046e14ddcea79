/**
 * What either side believes of the other is wrong, in every way at once and at random: baselines, kept copies, references. It
 * costs plain resends; the image is equal all the same.
 */
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { keepBaselineCopy } from '../../src/sync/upkeep/baseline-copy';
import { changeImage, randomBlock, sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { handOver, moveVm, prepareMove, sendImage } from '../helpers/moves';

const SIZE = 12 * 1024 * 1024;
const BLOCK = 65_536;

/** Overwrites some places of a file, by chance a few bytes or whole blocks. */
function damage(path: string, seed: number, places: number): void {
  if (!existsSync(path)) return;
  const file = openSync(path, 'r+');
  const { size } = fstatSync(file);
  const chance = randomBlock(seed, 77, 8 * places);
  for (let place = 0; place < places; place += 1) {
    const length = chance.readUInt8(8 * place) < 128 ? 3 : BLOCK;
    writeSync(file, randomBlock(seed, place, length), 0, length, chance.readUInt32LE(8 * place + 4) % (size - length));
  }
  closeSync(file);
}

const none = new AbortController().signal;

async function hosts(
  folder: string,
): Promise<{ a: TestHost; b: TestHost; disk: string; memory: string; onB: (image: string) => string }> {
  const [a, b] = [await startHost('a', join(folder, 'a')), await startHost('b', join(folder, 'b'))];
  mkdirSync(join(folder, 'vm'));
  const [disk, memory] = [join(folder, 'vm', 'disk.img'), join(folder, 'vm', 'memory.bin')];
  writeImage(disk, SIZE, 1);
  // Memory that is made of the disk's pages, in another order.
  const content = readFileSync(disk);
  const pages = Array.from({ length: SIZE / 4096 }, (_, page) =>
    content.subarray(((page * 613) % (SIZE / 4096)) * 4096).subarray(0, 4096),
  );
  writeFileSync(memory, Buffer.concat(pages));
  await a.registry.put({
    vmId: 'vm',
    images: [
      { imageId: 'vda', kind: 'disk', path: disk },
      { imageId: 'memory', kind: 'memory', path: memory },
    ],
    presence: 'here',
    generation: 0,
  });
  return { a, b, disk, memory, onB: (image) => join(b.dataDir, 'images', 'vm', `${image}.img`) };
}

describe('wrong knowledge', () => {
  it.each([1, 2, 3, 4, 5, 6])(
    'of baselines and kept copies, damaged at random (%i), never makes an image that differs',
    async (seed) => {
      const { a, b, disk, memory, onB } = await hosts(temporaryFolder());
      await moveVm('m1', 'vm', a, b);
      for (const image of ['vda', 'memory']) {
        await keepBaselineCopy(
          { vmId: 'vm', imageId: image, imagePath: onB(image) },
          'auto',
          b.store,
          b.source.pool,
          none,
        );
        damage(`${onB(image)}.dwcp-baseline`, seed, 12);
        changeImage(onB(image), SIZE, seed);
      }
      for (const [index, path] of [disk, memory].entries()) damage(`${path}.dwcp-baseline`, seed + 100 + index, 12);
      const expected = [sha256(onB('vda')), sha256(onB('memory'))];
      await moveVm('m2', 'vm', b, a);
      expect([sha256(disk), sha256(memory)]).toEqual(expected);
    },
  );

  it('of pages held elsewhere costs a plain resend of what was referred to', async () => {
    const { a, b, disk, memory, onB } = await hosts(temporaryFolder());
    const move = await prepareMove('m1', 'vm', a, b);
    const sentDisk = await sendImage(move, 'vda');
    const [expectedDisk, expectedMemory] = [sha256(disk), sha256(memory)];
    // The source's disk is another now: what it finds in it lies elsewhere at the destination, or nowhere.
    changeImage(disk, SIZE, 9);
    damage(disk, 9, 40);
    const sentMemory = await sendImage(move, 'memory');
    expect(sentMemory.counts.account.blocks.references).toBeGreaterThan(50);
    await handOver(move, [sentDisk, sentMemory]);
    expect([sha256(onB('vda')), sha256(onB('memory'))]).toEqual([expectedDisk, expectedMemory]);
  });

  it('of none makes memory of a disk’s pages cost next to nothing', async () => {
    const { a, b } = await hosts(temporaryFolder());
    const move = await prepareMove('m1', 'vm', a, b);
    const sentDisk = await sendImage(move, 'vda');
    const sentMemory = await sendImage(move, 'memory');
    expect(sentMemory.counts.refusedBlocks).toBe(0);
    expect(sentMemory.counts.payloadBytes).toBeLessThan(sentDisk.counts.payloadBytes / 20);
  });
});
