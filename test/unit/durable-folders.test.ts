/**
 * Names survive a crash of the host: whatever makes, renames, links or removes a file whose presence says something syncs the
 * folder that names it, behind the act.
 */
import { existsSync, mkdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BLOCK_SIZE_BYTES, type ImageSpec } from '../../src/model/image';
import type { OwnershipState } from '../../src/model/ownership-machine';
import { BaseStore } from '../../src/store/base-disks';
import { BaselineStore, baselinePathOf, workPathOf } from '../../src/store/baselines';
import { BlockJournal } from '../../src/store/block-journal';
import { DictionaryStore } from '../../src/store/dictionaries';
import { takeOverFolder } from '../../src/store/durable-file';
import { makeFolderDurably, removeDurably } from '../../src/store/durable-folder';
import { Manifest } from '../../src/store/manifest';
import { OwnershipJournal } from '../../src/store/ownership-journal';
import { VmRegistry } from '../../src/store/vm-registry';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import {
  installImage,
  installLinked,
  keepUnjournaled,
  linkInPlace,
  makeWorkFile,
  unlinkFromPlace,
} from '../../src/sync/destination/image-places';
import { WorkingImage } from '../../src/sync/destination/working-image';
import { keepBaselineCopy } from '../../src/sync/upkeep/baseline-copy';
import { temporaryFolder } from '../helpers/data';

const OWNER = { tenant: 'acme', uuid: '6a2f41a3-c54c-4ce8-92b1-3d1b1e0f3a10' };

const DISK: ImageSpec = { imageId: 'vda', kind: 'disk', sizeBytes: 2 * BLOCK_SIZE_BYTES };
const pool = new CodecPool(1);
afterAll(() => pool.close());

/** Which of these paths were there when the folder of `name` was synced last; undefined where it was not. */
let seen = new Map<string, boolean>();
let watched: readonly string[] = [];

let handles: FileHandle;

beforeAll(async () => {
  const any = await open('/', 'r');
  handles = Object.getPrototypeOf(any) as FileHandle;
  await any.close();
});

function watchSyncs(): void {
  const sync = handles.sync;
  jest.spyOn(handles, 'sync').mockImplementation(async function (this: FileHandle) {
    const folder = readlinkSync(`/proc/self/fd/${this.fd}`);
    for (const path of watched) if (dirname(path) === folder) seen.set(path, existsSync(path));
    await sync.call(this);
  });
}

beforeEach(watchSyncs);
afterEach(() => jest.restoreAllMocks());

/** What of these names is durable once the act is over: `there`, `gone`, or `unsaid`. */
async function after(act: () => Promise<unknown>, ...paths: readonly string[]): Promise<string[]> {
  seen = new Map();
  watched = paths;
  await act();
  return paths.map((path) => (seen.get(path) === existsSync(path) ? (existsSync(path) ? 'there' : 'gone') : 'unsaid'));
}

interface Place {
  readonly folder: string;
  readonly imagePath: string;
  readonly store: BaselineStore;
  readonly parameters: Parameters<typeof installImage>[0];
}

function place(): Place {
  const folder = temporaryFolder();
  const imagePath = join(folder, 'images', 'vm', 'vda.img');
  mkdirSync(dirname(imagePath), { recursive: true });
  return {
    folder,
    imagePath,
    store: new BaselineStore(folder),
    parameters: {
      migrationId: 'm1',
      vmId: 'vm',
      image: DISK,
      imagePath,
      journalPath: join(folder, 'incoming', 'vda.journal'),
      startFrom: 'baseline',
      owner: OWNER,
    },
  };
}

const writeLineTo = (journal: OwnershipJournal, state: OwnershipState, fence: number): Promise<unknown> =>
  journal.exclusively('vm', (vm) => vm.append(state, 'm1', fence));
const file = (path: string): void => writeFileSync(path, Buffer.alloc(DISK.sizeBytes, 1));
const record = {
  vmId: 'vm',
  imageId: 'vda',
  kind: 'disk' as const,
  sizeBytes: DISK.sizeBytes,
  generation: 1,
  complete: true,
};

describe('is durable when the act is over:', () => {
  test('a folder, and every folder above it that was made for it', async () => {
    const folder = temporaryFolder();
    const made = [join(folder, 'a'), join(folder, 'a', 'b'), join(folder, 'a', 'b', 'c')];
    expect(await after(() => makeFolderDurably(made[2]!), ...made)).toEqual(['there', 'there', 'there']);
  });

  test('a folder that another has made a moment ago, or an agent that was killed before its sync; also made anew', async () => {
    const folder = temporaryFolder();
    const made = [join(folder, 'a'), join(folder, 'a', 'b')];
    for (const again of [false, true]) {
      if (again) await removeDurably(made[0]!);
      mkdirSync(made[1]!, { recursive: true });
      expect(await after(() => makeFolderDurably(made[1]!), ...made)).toEqual(['there', 'there']);
    }
  });

  test('what an earlier agent may have died in front of', async () => {
    const folder = temporaryFolder();
    const paths = [join(folder, 'file'), join(folder, 'ownership', 'vm.journal')];
    mkdirSync(dirname(paths[1]!));
    for (const path of paths) writeFileSync(path, '');
    expect(await after(() => takeOverFolder(folder), ...paths)).toEqual(['there', 'there']);
  });

  test('a line of a journal whose folder could not be synced, before it is believed', async () => {
    const folder = temporaryFolder();
    const journal = new OwnershipJournal(folder);
    const path = join(folder, 'ownership', 'vm.journal');
    await writeLineTo(journal, 'claimed', 1);
    const failing = jest.spyOn(handles, 'sync').mockRejectedValue(Object.assign(new Error('EIO'), { code: 'EIO' }));
    await expect(writeLineTo(journal, 'handed_over', 1)).rejects.toThrow('EIO');
    failing.mockRestore();
    watchSyncs();
    expect(await after(() => journal.last('vm'), path)).toEqual(['there']);
  });

  test('a journal, with the folder that it has made for it', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'incoming', 'vda.journal');
    expect(
      await after(
        async () => (await BlockJournal.create(path, { migrationId: 'm1', image: DISK, base: 'empty' })).close(),
        path,
        dirname(path),
      ),
    ).toEqual(['there', 'there']);
  });

  test('a working file that is opened for the first time', async () => {
    const { parameters, store, imagePath } = place();
    expect(
      await after(async () => (await WorkingImage.open(parameters, store, pool)).close(), workPathOf(imagePath)),
    ).toEqual(['there']);
  });

  test('an empty working file', async () => {
    const { imagePath } = place();
    expect(await after(() => makeWorkFile(imagePath, DISK.sizeBytes), workPathOf(imagePath))).toEqual(['there']);
  });

  test('the second name of a guest’s disk, and that it has it no more', async () => {
    const { imagePath } = place();
    await makeWorkFile(imagePath, DISK.sizeBytes);
    expect(await after(() => linkInPlace(imagePath), imagePath)).toEqual(['there']);
    expect(await after(() => unlinkFromPlace(imagePath), imagePath)).toEqual(['gone']);
  });

  test('an image at its place: neither its working name nor the baseline it replaces comes back', async () => {
    const { imagePath, parameters, store } = place();
    file(workPathOf(imagePath));
    file(baselinePathOf(imagePath));
    await linkInPlace(imagePath);
    expect(
      await after(() => installImage(parameters, 1, store, pool), workPathOf(imagePath), baselinePathOf(imagePath)),
    ).toEqual(['gone', 'gone']);
    file(workPathOf(imagePath));
    expect(await after(() => installLinked(parameters, store), workPathOf(imagePath))).toEqual(['gone']);
  });

  test('that what a standard transfer has brought gave way to the baseline', async () => {
    const { imagePath, parameters, store } = place();
    file(workPathOf(imagePath));
    file(baselinePathOf(imagePath));
    expect(await after(() => keepUnjournaled(parameters, 1, store, pool), workPathOf(imagePath))).toEqual(['gone']);
  });

  test('a copy that is kept beside a VM', async () => {
    const { imagePath, store } = place();
    file(imagePath);
    await store.put(record, new Manifest(DISK.sizeBytes));
    expect(
      await after(
        () =>
          keepBaselineCopy(
            { vmId: 'vm', imageId: 'vda', imagePath },
            'auto',
            store,
            pool,
            new AbortController().signal,
          ),
        baselinePathOf(imagePath),
      ),
    ).toEqual(['there']);
  });

  test('that a baseline, a base, a dictionary and a VM are forgotten', async () => {
    const { folder, imagePath, store } = place();
    file(baselinePathOf(imagePath));
    await store.put({ ...record, contentPath: baselinePathOf(imagePath) }, new Manifest(DISK.sizeBytes));
    const json = join(folder, 'baselines', 'vm', 'vda.json');
    expect(await after(() => store.forget('vm', 'vda'), json, baselinePathOf(imagePath))).toEqual(['gone', 'gone']);
    const bases = new BaseStore(folder);
    await bases.put(
      { name: 'debian', tenant: 't', path: imagePath, sizeBytes: 1, modifiedAtMs: 0, root: 'r' },
      Buffer.alloc(8),
    );
    expect(await after(() => bases.forget('debian'), join(folder, 'bases', 'debian.json'))).toEqual(['gone']);
    const dictionaries = new DictionaryStore(folder);
    await dictionaries.put({ of: 'tenants', name: 'acme', vmType: 'web' }, Buffer.alloc(1000, 1), 1, 0.1);
    expect(
      await after(() => dictionaries.forget('web'), join(folder, 'dictionaries', 'tenants', 'acme', 'web')),
    ).toEqual(['gone']);
    const registry = new VmRegistry(folder);
    await registry.put({ vmId: 'vm', images: [], presence: 'here', generation: 0 });
    expect(await after(() => registry.remove('vm'), join(folder, 'vms', 'vm.json'))).toEqual(['gone']);
  });
});
