/** Worker threads that die: what they were not at fault for is done by another thread, and what kills them all is given up. */
import { truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { Manifest } from '../../src/store/manifest';
import type { MeasureJob } from '../../src/sync/codec/codec-jobs';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { randomBlock, temporaryFolder } from '../helpers/data';

const MANY_BLOCKS = 3_000_000;

/** More blocks at a time than a thread has memory for, little by little. */
function deadly(fd: number): MeasureJob & { readonly kind: 'measure' } {
  return {
    kind: 'measure',
    file: { fd, sizeBytes: MANY_BLOCKS * BLOCK_SIZE_BYTES },
    first: 1,
    count: MANY_BLOCKS - 1,
    hashes: new SharedArrayBuffer(16),
  };
}

test('a thread that dies takes the job with it that it was at, once a second thread has died at that too, and no other', async () => {
  const path = join(temporaryFolder(), 'image');
  writeFileSync(path, randomBlock(1, 1));
  truncateSync(path, MANY_BLOCKS * BLOCK_SIZE_BYTES);
  const file = await open(path);
  const pool = new CodecPool(1);
  const manifest = new Manifest(BLOCK_SIZE_BYTES);
  const killing = pool.run(deadly(file.fd));
  const others = [1, 2, 3].map(() =>
    pool.run({
      kind: 'measure',
      file: { fd: file.fd, sizeBytes: BLOCK_SIZE_BYTES },
      first: 0,
      count: 1,
      hashes: manifest.memory,
    }),
  );
  await expect(killing).rejects.toMatchObject({
    code: 'INTERNAL',
    message: expect.stringContaining('2 worker threads died') as string,
  });
  expect(await Promise.all(others)).toEqual([{ dataBlocks: 1 }, { dataBlocks: 1 }, { dataBlocks: 1 }]);
  await pool.close();
  await file.close();
});

test('a pool that is closed at once, while its threads still load what they run, takes nothing else with it', async () => {
  for (let time = 0; time < 20; time += 1) await new CodecPool(2).close();
});
