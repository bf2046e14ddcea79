/**
 * The counting guest: it writes a rising count to its pages one after the other, and at the end of each pass to its disk. What
 * its registers say it has done tells exactly what memory and disk must hold, so that a look at any moment shows whether they
 * are of one moment, and the truth kept beside all hosts shows whether that moment is its last.
 */
import type { DiskModel, Inode } from './disk-model';

export const RAM_ID = 'pc.ram';
export const ROM_ID = 'pc.bios';
export const PAGE_BYTES = 4096;
const BLOCK_BYTES = 64 * 1024;
/** Pages that it counts in: some blocks of its RAM, some pages of each. */
const COUNTING = [1, 2, 9, 17, 30];

export interface Registers {
  /** The pass it is in, from 1 on. */
  count: number;
  /** Pages written in this pass. */
  position: number;
}

/** What has happened to a VM, known to nobody in the simulated world. */
export interface Truth {
  last: Registers;
  /** It ran and ended with its QEMU or its host: from then on any state is a loss that is known. */
  lost: boolean;
}

export class Guest {
  readonly ram: Buffer;
  readonly rom: Buffer;
  readonly registers: Registers = { count: 1, position: 0 };
  /** Pages of the RAM written since somebody looked. */
  readonly dirty = new Set<number>();
  readonly #truth: Truth;

  constructor(ramBytes: number, truth: Truth) {
    this.ram = Buffer.alloc(ramBytes);
    this.rom = Buffer.alloc(2 * PAGE_BYTES, 0x5a);
    this.#truth = truth;
  }

  /** One write. @param write to the disk, where it has one */
  step(disk: { readonly blocks: number; write(block: number, bytes: Buffer): void } | undefined): void {
    const { registers } = this;
    const page = COUNTING[registers.position] ?? 0;
    this.#put(page, registers.count);
    registers.position += 1;
    if (registers.position === COUNTING.length) {
      if (disk) disk.write(registers.count % disk.blocks, patternOf(registers.count, 7));
      registers.count += 1;
      registers.position = 0;
    }
    this.#truth.last = { ...registers };
  }

  /** @returns what is wrong with it at this moment; undefined where it is whole and of its last moment */
  flaw(
    disk: { readonly blocks: number; readonly model: DiskModel; readonly node: Inode } | undefined,
  ): string | undefined {
    const { count, position } = this.registers;
    const { last } = this.#truth;
    if (count !== last.count || position !== last.position)
      return `it is at ${count}/${position} and had been at ${last.count}/${last.position}: its memory is of another moment`;
    for (const [index, page] of COUNTING.entries()) {
      const wanted = index < position ? count : count - 1;
      const found = this.ram.readUInt32LE(page * PAGE_BYTES);
      if (found !== wanted) return `page ${page} holds ${found} where its registers say ${wanted}: its memory is torn`;
      if (wanted > 0 && this.ram.readUInt32LE(page * PAGE_BYTES + 4092) !== wanted)
        return `page ${page} is half a page`;
    }
    if (this.rom[PAGE_BYTES] !== 0x5a) return 'its ROM is not there';
    return disk && diskFlaw(disk, count);
  }

  #put(page: number, count: number): void {
    patternOf(count, page).copy(this.ram, page * PAGE_BYTES);
    this.dirty.add(page);
  }
}

/** What the disk must hold when the guest is in pass `count`. */
function diskFlaw(
  { blocks, model, node }: { readonly blocks: number; readonly model: DiskModel; readonly node: Inode },
  count: number,
): string | undefined {
  const bytes = Buffer.alloc(8);
  for (let block = 0; block < blocks; block += 1) {
    let wanted = count - 1;
    while (wanted > 0 && wanted % blocks !== block) wanted -= 1;
    model.read(node, bytes.fill(0), block * BLOCK_BYTES + PAGE_BYTES);
    const found = bytes.readUInt32LE(0);
    if (found !== wanted)
      return `block ${block} of its disk holds ${found} where memory says ${wanted}: disk and memory are of different moments`;
  }
  return undefined;
}

const spare = Buffer.alloc(PAGE_BYTES);

/** A page of a count; for the time of the call. */
function patternOf(count: number, mark: number): Buffer {
  spare.writeUInt32LE(count, 0);
  spare.writeUInt32LE(mark, 8);
  spare.writeUInt32LE(count, PAGE_BYTES - 4);
  return spare;
}

/** Where in a block of the disk a count stands. */
export function diskOffset(block: number): number {
  return block * BLOCK_BYTES + PAGE_BYTES;
}
