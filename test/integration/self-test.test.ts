/** What an agent finds out of itself before it takes work. */
import { readdir } from 'node:fs/promises';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { selfTest } from '../../src/sync/codec/self-test';
import { temporaryFolder } from '../helpers/data';

let pool: CodecPool;
beforeAll(() => (pool = new CodecPool(2)));
afterAll(() => pool.close());

test('an encoder that undoes its own work passes, and leaves nothing behind', async () => {
  const folder = temporaryFolder();
  await selfTest(pool, folder);
  expect(await readdir(folder)).toEqual([]);
});

test('bytes that come out otherwise than they went in stop the agent', async () => {
  const run = pool.run.bind(pool);
  const damaging = jest.spyOn(pool, 'run').mockImplementation((job) => {
    if (job.kind === 'decode') new Uint8Array(job.frame.memory, job.frame.offset + job.frame.metaBytes)[0]! ^= 1;
    return run(job);
  });
  await expect(selfTest(pool, temporaryFolder())).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
  damaging.mockRestore();
});
