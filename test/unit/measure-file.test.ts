/** Files are read to the end of what was begun, whatever fails: only then may their descriptors be another file's. */
import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { Manifest } from '../../src/store/manifest';
import type { CodecPool } from '../../src/sync/codec/codec-pool';
import { measure } from '../../src/sync/codec/measure-file';
import { temporaryFolder } from '../helpers/data';

test('measuring that fails in one place ends when all that was begun has ended', async () => {
  const path = join(temporaryFolder(), 'image');
  const sizeBytes = 128 * BLOCK_SIZE_BYTES;
  writeFileSync(path, Buffer.alloc(sizeBytes, 1));
  const file = await open(path);
  let [jobs, reading] = [0, 0];
  const pool = {
    threads: 1,
    run: async () => {
      jobs += 1;
      if (jobs === 1) throw new Error('unreadable');
      reading += 1;
      await new Promise((resolve) => setTimeout(resolve, 30));
      reading -= 1;
    },
  } as unknown as CodecPool;
  await expect(measure(file.fd, new Manifest(sizeBytes), pool)).rejects.toThrow('unreadable');
  expect([jobs, reading]).toEqual([2, 0]);
  await file.close();
});
