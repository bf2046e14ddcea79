/**
 * A look at a real QEMU's memory: what is read is what the guest has there, the guest runs on, and nothing is left lying about.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { QemuMemoryLook } from '../../src/hypervisor/qemu/memory-look';
import { RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../src/model/image';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, countsOf, needsAssembler, needsQemu, startGuest } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const PAGES = 512;
const COUNTED_FROM = 2 * MIB;

describeWhere([needsQemu(), needsAssembler()])('a look at memory', () => {
  const looked = async (memoryMiB: number) => {
    const guest = await startGuest(buildCountingGuest(PAGES, { pagesPerTick: 160 }), memoryMiB);
    await until(20_000, 'the guest counts', async () => (await countsOf(guest, 1))[0]! > 2);
    const folder = temporaryFolder();
    const layout = new RamLayout([
      { id: 'pc.ram', usedBytes: memoryMiB * MIB },
      { id: 'seen by no processor', usedBytes: BLOCK_SIZE_BYTES },
    ]);
    const look = await QemuMemoryLook.open(guest.qmp, { path: join(folder, 'look.bin'), peer: undefined }, layout);
    return { guest, folder, look };
  };

  it('reads blocks as they are, and zeros where no RAM is seen; the guest runs on', async () => {
    const { guest, folder, look } = await looked(64);
    const blocks = Buffer.alloc(PAGES * PAGE_SIZE_BYTES);
    const [before] = await countsOf(guest, 1);
    await look.read(COUNTED_FROM / BLOCK_SIZE_BYTES, blocks);
    const [after] = await countsOf(guest, 1);
    for (let page = 0; page < PAGES; page += 1) {
      const count = blocks.readUInt32LE(page * PAGE_SIZE_BYTES);
      expect(count).toBeGreaterThanOrEqual(before! - 1);
      expect(count).toBeLessThanOrEqual(after!);
    }
    const overTheEnd = Buffer.alloc(2 * BLOCK_SIZE_BYTES, 1);
    await look.read((64 * MIB) / BLOCK_SIZE_BYTES - 1, overTheEnd);
    expect(overTheEnd.subarray(BLOCK_SIZE_BYTES).equals(Buffer.alloc(BLOCK_SIZE_BYTES))).toBe(true);
    expect(readdirSync(folder)).toEqual([]);
    await until(20_000, 'the guest counts on', async () => (await countsOf(guest, 1))[0]! > after!);
  });

  it('has QEMU say what changes, of memory that is large enough for it', async () => {
    const small = await looked(64);
    expect(await small.look.beginDirtyRate()).toBe(false);
    const { look } = await looked(256);
    expect(await look.beginDirtyRate()).toBe(true);
    await until(20_000, 'QEMU has a figure', async () => (await look.dirtyBytes()) !== undefined);
    const said = await look.dirtyBytes();
    expect(said?.seconds).toBe(1);
    expect(said!.bytes).toBeLessThanOrEqual(256 * MIB);
  });
});
