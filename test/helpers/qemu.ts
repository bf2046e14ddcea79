/**
 * Real QEMU guests for tests: QEMU 10 or newer (older ones lose pages under TCG by themselves: docs/architecture.md,
 * decisions), and the counting guest of test/guests, whose memory can be checked page by page.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureQemu, hasQemu, QEMU_INSTALL_LINE } from '../../src/cli/demo/qemu-package';
import { whichTool } from '../../src/cli/demo/tools';
import { connectSoon } from '../../src/hypervisor/qemu/guest-process';
import type { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { MIB } from '../../src/model/units';
import { bootSector, COUNT_SECTOR, countingSector } from '../guests/boot-sectors';
import { temporaryFolder } from './data';

const QEMU = 'qemu-system-x86_64';

const started: ChildProcess[] = [];

afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
});

/** Installs it from Debian's backports where this is root in CI; else says what is missing. */
export function needsQemu(): string | undefined {
  const present = process.env.CI === 'true' ? ensureQemu((line) => process.stderr.write(`${line}\n`)) : hasQemu();
  return present ? undefined : `QEMU 10 or newer is missing: ${QEMU_INSTALL_LINE}`;
}

export function needsAssembler(): string | undefined {
  return whichTool('as') && whichTool('ld') ? undefined : 'as and ld are missing: apt-get install -y binutils';
}

export interface CountingGuest {
  readonly image: string;
  readonly pages: number;
  readonly writesDisk: boolean;
}

/**
 * Of a counting guest. One that rests costs next to no processor, and is as fast on a busy machine as on a quiet one; one that
 * turns idly takes a whole one, and shows what a guest does that is throttled.
 */
export interface Pace {
  /** Pages that it writes in each 1/18.2 second. */
  readonly pagesPerTick?: number;
  /** Between two pages; 400 of them make some 3,000 pages a second. */
  readonly idleTurns?: number;
}

/**
 * The guest as a bootable disk. @param pace how fast it dirties memory
 * @param writesDisk it writes each count to its disk too; it needs a machine with IDE for that
 */
export function buildCountingGuest(
  pages: number,
  { idleTurns = 0, pagesPerTick = 0 }: Pace,
  diskBytes = 1024 * 1024,
  writesDisk = false,
): CountingGuest {
  const image = join(temporaryFolder(), 'counter.img');
  const sector = countingSector(temporaryFolder(), { pages, pagesPerTick, idleTurns, writesDisk });
  // The firmware passes over a disk of one sector; what is behind it is random, so that it takes its time on a link.
  const rest = diskBytes - sector.length;
  writeFileSync(image, Buffer.concat([sector, diskBytes > 1024 * 1024 ? randomBytes(rest) : Buffer.alloc(rest)]));
  return { image, pages, writesDisk };
}

/** A guest that does what the key says that is pressed at it (test/guests/keys.S). @returns its boot sector */
export function buildKeyGuest(): Buffer {
  return bootSector('keys', temporaryFolder());
}

/**
 * A guest that writes over a range of its disk, round and round (test/guests/writer.S); it needs a machine with IDE.
 * @param piecesPerTick of 128 KiB each, at a tick of 1/18.2 s
 */
export function buildWritingGuest(rangeMiB: number, piecesPerTick: number): CountingGuest {
  const sector = bootSector('writer', temporaryFolder());
  sector.writeUInt32LE(piecesPerTick, 0x1e8);
  sector.writeUInt32LE(MIB / 512, 0x1ec);
  sector.writeUInt32LE(rangeMiB * 8, 0x1f0);
  const image = join(temporaryFolder(), 'writer.img');
  writeFileSync(image, Buffer.concat([sector, randomBytes((1 + rangeMiB) * MIB - sector.length)]));
  return { image, pages: 0, writesDisk: true };
}

export interface RunningGuest {
  readonly process: ChildProcess;
  readonly qmp: QmpClient;
  readonly serialFile: string;
}

/** @param incoming where it takes a migration stream; it stays paused then */
export async function startGuest(guest: CountingGuest, memoryMiB: number, incoming?: string): Promise<RunningGuest> {
  const folder = temporaryFolder();
  const [qmpPath, serialFile] = [join(folder, 'qmp'), join(folder, 'serial')];
  const log = openSync(join(folder, 'log'), 'a');
  const args = [
    '-accel',
    'tcg',
    '-M',
    'pc-q35-10.0',
    '-m',
    String(memoryMiB),
    '-display',
    'none',
    '-vga',
    'none',
    '-nic',
    'none',
    '-monitor',
    'none',
    '-serial',
    `file:${serialFile}`,
    '-drive',
    `file=${guest.image},format=raw,snapshot=on`,
    '-qmp',
    `unix:${qmpPath},server=on,wait=off`,
    ...(incoming === undefined ? [] : ['-S', '-incoming', incoming]),
  ];
  const child = spawn(QEMU, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  started.push(child);
  for (
    const deadline = Date.now() + 10_000;
    !existsSync(qmpPath);
    await new Promise((resolve) => setTimeout(resolve, 20))
  ) {
    if (child.exitCode !== null || Date.now() > deadline)
      throw new Error(`QEMU does not start: ${readFileSync(join(folder, 'log'), 'utf8')}`);
  }
  return { process: child, qmp: await connectSoon(qmpPath), serialFile };
}

/** The first word of each page that the guest counts in, read through the monitor. */
export async function countsOf({ qmp }: RunningGuest, pages: number): Promise<number[]> {
  const file = join(temporaryFolder(), 'memory');
  await qmp.execute('pmemsave', { val: 0x20_0000, size: pages * 4096, filename: file });
  const memory = readFileSync(file);
  return Array.from({ length: pages }, (_, page) => memory.readUInt32LE(page * 4096));
}

/** The count that the guest has written to its disk last. */
export function countOnDisk(path: string): number {
  const fd = openSync(path, 'r');
  try {
    const word = Buffer.alloc(4);
    readSync(fd, word, 0, 4, COUNT_SECTOR * 512);
    return word.readUInt32LE(0);
  } finally {
    closeSync(fd);
  }
}

/** The guest counts without pause, so a page may be one count behind the first, never more, and never go up again. */
export function expectOnePass(counts: readonly number[]): void {
  const first = counts[0]!;
  expect(first).toBeGreaterThan(0);
  const turn = counts.findIndex((count) => count !== first);
  const behind = turn < 0 ? [] : counts.slice(turn);
  expect(new Set(behind).size).toBeLessThanOrEqual(1);
  for (const count of behind.slice(0, 1)) expect(first - count).toBe(1);
}
