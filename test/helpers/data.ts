/**
 * Test data: images with zero, compressible and random blocks from a seed, and comparisons. Deterministic, so that a
 * failure can be run again.
 */
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const BLOCK = 65_536;

/** Bytes that depend on seed and index only. */
export function randomBlock(seed: number, index: number, length = BLOCK): Buffer {
  const out = Buffer.alloc(length);
  for (let at = 0; at < length; at += 32) createHash('sha256').update(`${seed}/${index}/${at}`).digest().copy(out, at);
  return out;
}

export function textBlock(seed: number, index: number, length = BLOCK): Buffer {
  const line = `block ${index} of ${seed}: the quick brown fox jumps over the lazy dog ${(seed * 7919 + index * 104_729) % 1_000_003}\n`;
  return Buffer.from(line.repeat(Math.ceil(length / line.length))).subarray(0, length);
}

export type BlockKind = 'zero' | 'text' | 'random';

/** The kind of each block: a third of each, spread by the seed. */
export function kindOf(seed: number, index: number): BlockKind {
  return (
    (['zero', 'text', 'random'] as const)[createHash('md5').update(`${seed}:${index}`).digest().readUInt8(0) % 3] ??
    'zero'
  );
}

export function makeBlock(seed: number, index: number, length = BLOCK): Buffer {
  const kind = kindOf(seed, index);
  return kind === 'zero'
    ? Buffer.alloc(length)
    : kind === 'text'
      ? textBlock(seed, index, length)
      : randomBlock(seed, index, length);
}

/** Writes a sparse image; zero blocks stay holes. */
export function writeImage(path: string, sizeBytes: number, seed: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  for (let at = 0; at < sizeBytes; at += BLOCK) {
    const block = makeBlock(seed, at / BLOCK, Math.min(BLOCK, sizeBytes - at));
    if (kindOf(seed, at / BLOCK) !== 'zero') writeSync(fd, block, 0, block.length, at);
  }
  closeSync(fd);
}

/** Rewrites some whole blocks and edits some others in place. */
export function changeImage(path: string, sizeBytes: number, seed: number): void {
  const fd = openSync(path, 'r+');
  for (let at = 0; at + BLOCK <= sizeBytes; at += BLOCK) {
    const pick = createHash('md5').update(`${seed}|${at}`).digest().readUInt8(0) % 20;
    if (pick === 0) writeSync(fd, randomBlock(seed, at), 0, BLOCK, at);
    if (pick === 1) writeSync(fd, Buffer.alloc(BLOCK), 0, BLOCK, at);
    if (pick === 2 || pick === 3) writeSync(fd, Buffer.from(`edit ${seed} ${at}`), 0, 10, at + 8200);
  }
  closeSync(fd);
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-test-'));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const cleanups: (() => void)[] = [];

afterAll(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});
