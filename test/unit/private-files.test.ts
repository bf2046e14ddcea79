/** What lies in a data folder is its user's alone, whoever has made the folder. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DictionaryStore } from '../../src/store/dictionaries';
import { writeDurably } from '../../src/store/durable-file';
import { VmRegistry } from '../../src/store/vm-registry';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { trainDictionary } from '../../src/sync/upkeep/train-dictionary';
import { temporaryFolder } from '../helpers/data';

/** Of everything below a folder, and of it. */
function open(folder: string): string[] {
  const below = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = [folder, ...below.map(({ parentPath, name }) => join(parentPath, name))];
  return paths.filter((path) => (statSync(path).mode & 0o077) !== 0);
}

let before: number;

beforeEach(() => {
  before = process.umask(0);
});

afterEach(() => process.umask(before));

test('also where `vm define` was there before an agent', async () => {
  const dataDir = join(temporaryFolder(), 'share', 'dwcp');
  await new VmRegistry(dataDir).put({ vmId: 'vm', images: [], presence: 'here', generation: 0 });
  await writeDurably(join(dataDir, 'deeper', 'still', 'file'), 'x');
  expect(open(join(dataDir, '..'))).toEqual([]);
});

test('samples of VMs’ pages, too', async () => {
  const dataDir = join(temporaryFolder(), 'dwcp');
  const pool = new CodecPool(1);
  const key = { of: 'tenants', name: 'acme', vmType: 'web' } as const;
  await trainDictionary(key, Buffer.alloc(8192, 7), new DictionaryStore(dataDir), pool);
  await pool.close();
  expect(readdirSync(new DictionaryStore(dataDir).samplesFolder(key))).toHaveLength(1);
  expect(open(dataDir)).toEqual([]);
});
