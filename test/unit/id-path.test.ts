/** Ids that arrive from anywhere become paths in one folder each, or none at all. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { resolveDataDir } from '../../src/agent/host';
import { hostIdSchema } from '../../src/model/ids';
import { BaseStore } from '../../src/store/base-disks';
import { BaselineStore } from '../../src/store/baselines';
import { DictionaryStore } from '../../src/store/dictionaries';
import { idPath, idsIn } from '../../src/store/id-path';
import { Manifest } from '../../src/store/manifest';
import { OwnershipJournal } from '../../src/store/ownership-journal';
import { VmRegistry } from '../../src/store/vm-registry';
import { recordFolder, removeRecord } from '../../src/sync/destination/destination-record';
import { temporaryFolder } from '../helpers/data';

const BAD = ['../../x', '..', '.', '', 'a/b', '/etc/passwd', 'a\0b', '.hidden', 'a\n', 'x'.repeat(121)];
const coded = (code: string): Error => expect.objectContaining({ code }) as Error;
const REFUSED = coded('INVALID_INPUT');

describe('an id', () => {
  it.each(BAD)('such as %j becomes no path', (id) => {
    expect(() => idPath('/data/vms', id, '.json')).toThrow(REFUSED);
  });

  it('that is a name becomes one', () => {
    expect(idPath('/data/vms', 'web-1.a_B', '.json')).toBe('/data/vms/web-1.a_B.json');
  });

  it('is read from a folder only where it is a name', async () => {
    const folder = temporaryFolder();
    for (const name of ['a.json', '.x.json', 'b.txt', 'c d.json']) writeFileSync(join(folder, name), '');
    expect(await idsIn(folder, '.json')).toEqual(['a']);
  });
});

describe.each(BAD)('what is asked for by the id %j is neither read, written nor removed:', (id) => {
  const folder = (): string => join(temporaryFolder(), 'a', 'b', 'data');
  const stores: [string, (dataDir: string) => Promise<unknown>][] = [
    ['a VM', (dataDir) => new VmRegistry(dataDir).find(id)],
    ['a VM to be removed', (dataDir) => new VmRegistry(dataDir).remove(id)],
    ['a run folder', async (dataDir) => Promise.resolve(new VmRegistry(dataDir).runFolder(id))],
    [
      'the place of an image',
      async (dataDir) => Promise.resolve(new VmRegistry(dataDir).imagePath(undefined, 'vm', id)),
    ],
    ['a journal', (dataDir) => new OwnershipJournal(dataDir).last(id)],
    [
      'a line of a journal',
      (dataDir) => new OwnershipJournal(dataDir).exclusively(id, (vm) => vm.append('abandoned', 'm1', 1)),
    ],
    ['a record', async (dataDir) => Promise.resolve(recordFolder(dataDir, id))],
    ['a record to be removed', (dataDir) => removeRecord(dataDir, id)],
    ['a baseline', (dataDir) => new BaselineStore(dataDir).open(id, 'vda')],
    ['an image of a baseline', (dataDir) => new BaselineStore(dataDir).open('vm', id)],
    ['a baseline to be forgotten', (dataDir) => new BaselineStore(dataDir).forget(id, 'vda')],
    ['a dictionary', (dataDir) => new DictionaryStore(dataDir).current({ of: 'vms', name: 'vm', vmType: id })],
    [
      'a dictionary of a tenant',
      (dataDir) => new DictionaryStore(dataDir).current({ of: 'tenants', name: id, vmType: 'web' }),
    ],
    ['a dictionary to be forgotten', (dataDir) => new DictionaryStore(dataDir).forget(id)],
    ['a received dictionary', (dataDir) => new DictionaryStore(dataDir).received(id)],
    ['a base', (dataDir) => new BaseStore(dataDir).forget(id)],
  ];

  it.each(stores)('%s', async (_, ask) => {
    const dataDir = folder();
    await expect((async () => ask(dataDir))()).rejects.toEqual(REFUSED);
    expect(existsSync(dataDir)).toBe(false);
  });
});

describe('a record that says that it is another’s', () => {
  it('of a VM is damaged', async () => {
    const dataDir = temporaryFolder();
    const registry = new VmRegistry(dataDir);
    await registry.put({ vmId: 'vm', images: [], presence: 'here', generation: 0 });
    writeFileSync(join(dataDir, 'vms', 'other.json'), readFileSync(join(dataDir, 'vms', 'vm.json')));
    await expect(registry.find('other')).rejects.toMatchObject({ code: 'JOURNAL_CORRUPT' });
  });

  it('of a baseline is none, and names no file but a baseline’s to be removed', async () => {
    const dataDir = temporaryFolder();
    const store = new BaselineStore(dataDir);
    const mine = join(dataDir, 'mine');
    writeFileSync(mine, 'mine');
    const record = {
      vmId: 'vm',
      imageId: 'vda',
      kind: 'disk' as const,
      sizeBytes: 65_536,
      generation: 1,
      complete: true,
    };
    await store.put(record, new Manifest(65_536));
    const path = join(dataDir, 'baselines', 'vm', 'vda.json');
    mkdirSync(join(dataDir, 'baselines', 'other'));
    writeFileSync(join(dataDir, 'baselines', 'other', 'vda.json'), readFileSync(path));
    expect(await store.open('other', 'vda')).toBeUndefined();
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), contentPath: mine }));
    await store.forget('vm', 'vda');
    expect(existsSync(mine)).toBe(true);
  });
});

describe('a name of a folder', () => {
  it('is free for a VM type', async () => {
    const store = new DictionaryStore(temporaryFolder());
    const bytes = Buffer.from('a dictionary');
    const { hash } = await store.put({ of: 'tenants', name: 'received', vmType: 'received' }, bytes, 1, 0.1);
    expect(await store.received(hash)).toBeUndefined();
    expect((await store.list()).map(({ vmType }) => vmType)).toEqual(['received']);
  });

  it('that lies beside the folders of hosts is no host’s', () => {
    expect(hostIdSchema.safeParse('trust').success).toBe(false);
    expect(() => resolveDataDir({ hostId: 'trust', dataDir: '' })).toThrow(coded('CONFIG_INVALID'));
  });
});
