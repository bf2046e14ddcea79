/** What a host keeps, across crashes: journals, manifests, baselines, ownership. */
import {
  appendFileSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { blockHash } from '../../src/encoder/hash';
import { BaselineStore } from '../../src/store/baselines';
import { BlockJournal, type JournalledBlock } from '../../src/store/block-journal';
import { dataRuns, holeRuns, isHole } from '../../src/store/data-runs';
import { Manifest } from '../../src/store/manifest';
import { nextData, nextHole, punchHole } from '../../src/store/system-calls';
import { VmRegistry } from '../../src/store/vm-registry';
import { randomBlock, temporaryFolder, writeImage } from '../helpers/data';

const IMAGE = { imageId: 'vda', kind: 'disk' as const, sizeBytes: 10 * 65_536 };

async function journalWith(path: string, blocks: readonly number[]): Promise<void> {
  const journal = await BlockJournal.create(path, { migrationId: 'm1', image: IMAGE, base: 'empty' });
  await journal.append(blocks.map((block) => ({ block, hash: blockHash(randomBlock(1, block)) })));
  await journal.close();
}

async function readBack(path: string): Promise<number[] | undefined> {
  const seen: JournalledBlock[] = [];
  const journal = await BlockJournal.open(path, (block) =>
    seen.push({ block: block.block, hash: Buffer.from(block.hash) }),
  );
  await journal?.close();
  for (const { block, hash } of seen) expect(hash.equals(blockHash(randomBlock(1, block)))).toBe(true);
  return journal && seen.map(({ block }) => block);
}

describe('block journal', () => {
  it('gives back what was appended, over several openings', async () => {
    const path = join(temporaryFolder(), 'j');
    await journalWith(path, [1, 2, 3]);
    const journal = await BlockJournal.open(path, () => undefined);
    await journal?.append([{ block: 7, hash: blockHash(randomBlock(1, 7)) }]);
    await journal?.close();
    expect(await readBack(path)).toEqual([1, 2, 3, 7]);
  });

  it('drops a record that a crash has cut off, at whatever byte, and keeps those before it', async () => {
    const path = join(temporaryFolder(), 'j');
    await journalWith(path, [1, 2, 3]);
    const whole = readFileSync(path);
    for (let cut = 1; cut < 24; cut += 1) {
      writeFileSync(path, whole.subarray(0, whole.length - cut));
      expect(await readBack(path)).toEqual([1, 2]);
    }
  });

  it('stops at a damaged record and ignores garbage behind it', async () => {
    const path = join(temporaryFolder(), 'j');
    await journalWith(path, [1, 2, 3]);
    appendFileSync(path, randomBlock(9, 9, 240));
    expect(await readBack(path)).toEqual([1, 2, 3]);
    const bytes = readFileSync(path);
    bytes[bytes.length - 24 - 10] = bytes[bytes.length - 24 - 10]! ^ 1;
    writeFileSync(path, bytes);
    expect(await readBack(path)).toEqual([1]);
  });

  it('is no journal where even its head is not whole', async () => {
    const path = join(temporaryFolder(), 'j');
    await journalWith(path, []);
    truncateSync(path, 20);
    expect(await readBack(path)).toBeUndefined();
    expect(await readBack(join(temporaryFolder(), 'none'))).toBeUndefined();
  });
});

describe('baseline store', () => {
  const record = (vmId: string) => ({
    vmId,
    imageId: 'vda',
    kind: 'disk' as const,
    sizeBytes: IMAGE.sizeBytes,
    generation: 1,
    complete: true,
  });

  async function keep(store: BaselineStore, folder: string, vmId: string): Promise<string> {
    const path = join(folder, `${vmId}.img`);
    writeImage(path, IMAGE.sizeBytes, vmId.length);
    await store.adopt(path, path, record(vmId), new Manifest(IMAGE.sizeBytes));
    return `${path}.dwcp-baseline`;
  }

  it('opens what was kept, and nothing whose manifest does not hash to its record', async () => {
    const folder = temporaryFolder();
    const store = new BaselineStore(folder);
    await keep(store, folder, 'a');
    expect((await store.open('a', 'vda'))?.record.generation).toBe(1);
    const manifest = join(folder, 'baselines', 'a', 'vda.manifest');
    const bytes = readFileSync(manifest);
    bytes[3] = 1;
    writeFileSync(manifest, bytes);
    expect(await store.open('a', 'vda')).toBeUndefined();
  });

  describe('that is told once more to keep a file', () => {
    const manifest = new Manifest(IMAGE.sizeBytes);
    const content = Buffer.from('what is kept');
    let [work, image, kept] = ['', '', ''];
    let store: BaselineStore;
    const adopt = (generation = 1): Promise<void> => store.adopt(work, image, { ...record('a'), generation }, manifest);

    beforeEach(() => {
      const folder = temporaryFolder();
      [work, image, kept] = [join(folder, 'work'), join(folder, 'disk.img'), join(folder, 'disk.img.dwcp-baseline')];
      store = new BaselineStore(folder);
      writeFileSync(work, content);
    });

    it('has it as it was, and knows how it is sealed', async () => {
      await adopt();
      const { record: first } = (await store.open('a', 'vda'))!;
      await store.setSeal(first, { keyId: '0'.repeat(16), salt: '0'.repeat(32), complete: true });
      const sealed = (await store.open('a', 'vda'))?.record;
      await adopt();
      expect(readFileSync(kept).equals(content)).toBe(true);
      expect(sealed?.seal).toBeDefined();
      expect((await store.open('a', 'vda'))?.record).toEqual(sealed);
    });

    it('records what an earlier try has put in its place', async () => {
      renameSync(work, kept);
      await adopt();
      expect(readFileSync(kept).equals(content)).toBe(true);
      expect((await store.open('a', 'vda'))?.record).toMatchObject({ generation: 1, contentPath: kept });
    });

    it('takes no older baseline for it', async () => {
      await adopt(1);
      await adopt(2);
      expect([existsSync(kept), await store.open('a', 'vda')]).toEqual([false, undefined]);
    });
  });

  it('removes the least recently used first, and only until the rest fits', async () => {
    const folder = temporaryFolder();
    const store = new BaselineStore(folder);
    const paths = [await keep(store, folder, 'a'), await keep(store, folder, 'bb'), await keep(store, folder, 'ccc')];
    const sizes = (await store.list()).map((each) => each.allocatedBytes);
    await store.prune(sizes[1]! + sizes[2]!);
    expect(paths.map((path) => existsSync(path))).toEqual([false, true, true]);
  });

  it('keeps within its limit by itself when something new is put', async () => {
    const folder = temporaryFolder();
    const store = new BaselineStore(folder, { hostBytes: 600_000, vmBytes: 0 });
    const paths = [await keep(store, folder, 'a'), await keep(store, folder, 'bb'), await keep(store, folder, 'ccc')];
    expect(existsSync(paths[0]!)).toBe(false);
    expect(existsSync(paths[2]!)).toBe(true);
  });
});

describe('baselines of several VMs', () => {
  const put = async (store: BaselineStore, folder: string, vmId: string, imageId: string): Promise<string> => {
    const path = join(folder, `${vmId}-${imageId}.img`);
    writeImage(path, IMAGE.sizeBytes, 5);
    await store.adopt(
      path,
      path,
      { ...IMAGE, vmId, imageId, kind: 'disk', generation: 1, complete: true },
      new Manifest(IMAGE.sizeBytes),
    );
    return `${path}.dwcp-baseline`;
  };

  it('keeps each VM within its own limit, whatever the others take', async () => {
    const folder = temporaryFolder();
    const store = new BaselineStore(folder, { hostBytes: 0, vmBytes: 600_000 });
    const other = await put(store, folder, 'other', 'vda');
    const own = [
      await put(store, folder, 'vm', 'vda'),
      await put(store, folder, 'vm', 'vdb'),
      await put(store, folder, 'vm', 'vdc'),
    ];
    expect([other, ...own].map((path) => existsSync(path))).toEqual([true, false, false, true]);
    expect([await store.hasRoomFor(500_000, 'vm'), await store.hasRoomFor(500_000, 'third')]).toEqual([false, true]);
  });

  it('lets a VM that was not used for longest go as a whole before it touches another', async () => {
    const folder = temporaryFolder();
    const store = new BaselineStore(folder);
    const first = await put(store, folder, 'busy', 'vda');
    const idle = [await put(store, folder, 'idle', 'vda'), await put(store, folder, 'idle', 'vdb')];
    const last = await put(store, folder, 'busy', 'vdb');
    const [size = 0] = (await store.list()).map((each) => each.allocatedBytes);
    await store.prune(2 * size);
    expect([first, ...idle, last].map((path) => existsSync(path))).toEqual([true, false, false, true]);
  });
});

describe('VM registry', () => {
  it('knows where an image lives, also for a VM that is away, and refuses what is not here', async () => {
    const registry = new VmRegistry('/data');
    expect(registry.imagePath(undefined, 'vm', 'vda')).toBe('/data/images/vm/vda.img');
    const here = new VmRegistry(temporaryFolder());
    await here.put({
      vmId: 'vm',
      images: [{ imageId: 'vda', kind: 'disk', path: '/x/disk' }],
      presence: 'away',
      movedTo: 'b',
      generation: 2,
    });
    expect(here.imagePath(await here.find('vm'), 'vm', 'vda')).toBe('/x/disk');
    await expect(here.getHere('vm')).rejects.toMatchObject({ code: 'VM_NOT_HERE' });
    await expect(here.get('other')).rejects.toMatchObject({ code: 'VM_UNKNOWN' });
  });
});

describe('sparse files', () => {
  it('shows where data and holes are, and makes holes', () => {
    const path = join(temporaryFolder(), 'sparse');
    writeFileSync(path, '');
    truncateSync(path, 1 << 20);
    const fd = openSync(path, 'r+');
    writeFileSync(fd, Buffer.alloc(65_536, 1));
    expect(nextData(fd, 0)).toBe(0);
    expect(nextHole(fd, 0)).toBe(65_536);
    expect(nextData(fd, 65_536)).toBe(Infinity);
    expect(punchHole(fd, 0, 65_536)).toBe(true);
    expect(nextData(fd, 0)).toBe(Infinity);
  });

  it('are walked in whole units: what holds a byte is data, the rest holes', () => {
    const path = join(temporaryFolder(), 'walked');
    writeFileSync(path, '');
    const [page, unit, sizeBytes] = [4096, 65_536, 20 * 65_536 + 100];
    truncateSync(path, sizeBytes);
    const fd = openSync(path, 'r+');
    // Two in one unit, one over an edge, neighbours, and nothing at the end.
    for (const at of [page, 5 * page, 3 * unit - page, 3 * unit, 9 * unit, 10 * unit])
      writeSync(fd, Buffer.alloc(page, 1), 0, page, at);
    expect([...dataRuns(fd, sizeBytes, unit)]).toEqual([
      { first: 0, count: 1 },
      { first: 2, count: 2 },
      { first: 9, count: 1 },
      { first: 10, count: 1 },
    ]);
    expect([...holeRuns(fd, sizeBytes, unit)]).toEqual([
      { first: 1, count: 1 },
      { first: 4, count: 5 },
      { first: 11, count: 10 },
    ]);
    expect([...holeRuns(fd, 0, unit)]).toEqual([]);
    expect(isHole(fd, unit, 2 * unit)).toBe(true);
    expect(isHole(fd, 2 * unit, 3 * unit)).toBe(false);
  });
});
