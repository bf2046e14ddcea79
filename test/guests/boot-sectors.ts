/**
 * The boot sectors that stand beside this file, assembled, and the counting guest's with its numbers in their places. They know nothing
 * of jest: tests and benches have them.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const SOURCES = join(__dirname, '..', '..', '..', 'test', 'guests');
/** Of a counting guest's disk: where it writes its count. */
export const COUNT_SECTOR = 1024;
/** Of its memory: where its pages begin. */
export const FIRST_PAGE = 0x20_0000;

/** @param folder where the assembler may write */
export function bootSector(name: 'counter' | 'keys' | 'writer', folder: string): Buffer {
  const [object, binary] = [join(folder, `${name}.o`), join(folder, `${name}.img`)];
  execFileSync('as', ['--32', '-I', SOURCES, '-o', object, join(SOURCES, `${name}.S`)]);
  execFileSync('ld', ['-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary', '-o', binary, object]);
  return readFileSync(binary);
}

export interface CountingNumbers {
  readonly pages: number;
  readonly pagesPerTick: number;
  readonly idleTurns: number;
  readonly writesDisk: boolean;
}

export function countingSector(
  folder: string,
  { pages, pagesPerTick, idleTurns, writesDisk }: CountingNumbers,
): Buffer {
  const sector = bootSector('counter', folder);
  sector.writeUInt32LE(pagesPerTick, 0x1e8);
  sector.writeUInt32LE(writesDisk ? COUNT_SECTOR : 0, 0x1ec);
  sector.writeUInt32LE(pages, 0x1f0);
  sector.writeUInt32LE(idleTurns, 0x1f4);
  return sector;
}

/** What is wrong with a counting guest's pages: read in order they hold one count up to some page, and the one before from there on. */
export function wrongPass(counts: readonly number[]): string | undefined {
  const first = counts[0] ?? 0;
  if (first === 0) return 'it has not counted';
  const turn = counts.findIndex((count) => count !== first);
  if (turn < 0) return undefined;
  const at = counts.slice(turn).findIndex((count) => count !== first - 1);
  return at < 0 ? undefined : `its page ${turn + at} has the count ${counts[turn + at] ?? '?'}, and its first ${first}`;
}
