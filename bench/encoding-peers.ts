/**
 * What others make of the same files: zstd, zstd --patch-from, xdelta3, rsync's literal bytes, casync, and fixed chunks with
 * zstd. Sizes are of files on disk; rates are raw bytes by processor time.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { compressBound, Packer } from '../src/encoder/packer';
import { KIB } from '../src/model/units';
import type { Row } from './report';

/** Runs a line of shell. @returns processor seconds of it and of what it started, and what it printed */
function timed(line: string, ...args: readonly string[]): { readonly cpuSeconds: number; readonly output: string } {
  const { status, stdout, stderr } = spawnSync(
    'bash',
    ['-c', `TIMEFORMAT='cpu %U %S'; time { ${line}; }`, 'bash', ...args],
    { encoding: 'utf8' },
  );
  const [, user, system] = /cpu ([\d.]+) ([\d.]+)/.exec(stderr) ?? [];
  if (status !== 0 || user === undefined) throw new Error(`${line}: ${stderr.slice(-300)}`);
  return { cpuSeconds: Number(user) + Number(system), output: stdout };
}

function row(name: string, rawBytes: number, sentBytes: number, cpuSeconds: number): Row {
  return {
    name,
    rawBytes,
    linkBytes: sentBytes,
    ratio: rawBytes / sentBytes,
    bytesPerSecond: rawBytes / Math.max(0.01, cpuSeconds),
  };
}

export function zstdRows(data: string, file: string, scratch: string): Row[] {
  return [1, 3, 9].map((level) => {
    const out = join(scratch, 'packed');
    const { cpuSeconds } = timed(`zstd -q -f -T1 -${level} "$1" -o "$2"`, file, out);
    return row(`zstd -${level} ${data}`, statSync(file).size, statSync(out).size, cpuSeconds);
  });
}

/** Peers that know the version before. */
export function deltaRows(data: string, before: string, after: string, scratch: string): Row[] {
  const out = join(scratch, 'delta');
  const rawBytes = statSync(after).size;
  const patch = timed('zstd -q -f -T1 -3 --long=30 --patch-from="$1" "$2" -o "$3"', before, after, out);
  const rows = [row(`zstd --patch-from ${data}`, rawBytes, statSync(out).size, patch.cpuSeconds)];
  const xdelta = timed('xdelta3 -e -f -3 -B 134217728 -s "$1" "$2" "$3"', before, after, out);
  rows.push(row(`xdelta3 ${data}`, rawBytes, statSync(out).size, xdelta.cpuSeconds));
  const copy = join(scratch, 'copy');
  const rsync = timed(
    'cp "$1" "$3"; rsync --stats --no-whole-file --inplace --ignore-times "$2" "$3"',
    before,
    after,
    copy,
  );
  const literal = Number(/Literal data: ([\d,]+)/.exec(rsync.output)?.[1]?.replaceAll(',', '') ?? NaN);
  rows.push(row(`rsync literal ${data}`, rawBytes, Math.max(1, literal), rsync.cpuSeconds));
  return rows;
}

/**
 * casync: chunks cut where the content says so, 64 KiB on average, each once and under zstd, but for those that a
 * version before has; with its index.
 */
export function casyncRows(data: string, before: string | undefined, file: string, scratch: string): Row[] {
  if (spawnSync('casync', ['--version']).status !== 0) return [];
  const [store, index] = [join(scratch, 'chunks'), join(scratch, 'image.caibx')];
  rmSync(store, { recursive: true, force: true });
  const make = (image: string): number =>
    timed('casync make --compression=zstd --store="$1" "$2" "$3"', store, index, image).cpuSeconds;
  const weigh = (): number =>
    Number(timed(`find "$1" -type f -printf '%s\\n' | awk '{ sum += $1 } END { print sum }'`, store).output);
  if (before !== undefined) make(before);
  const heldBytes = before === undefined ? 0 : weigh();
  const cpuSeconds = make(file);
  const sentBytes = weigh() - heldBytes + statSync(index).size;
  rmSync(store, { recursive: true, force: true });
  return [row(`casync ${data}`, statSync(file).size, sentBytes, cpuSeconds)];
}

/** 64 KiB chunks, each sent once, under zstd -3, but for those that a version before has. */
export function chunkRow(data: string, before: string | undefined, file: string): Row {
  const startedAt = process.cpuUsage();
  const known = new Set<string>();
  if (before !== undefined) for (const chunk of chunksOf(before)) known.add(digestOf(chunk));
  const packer = new Packer();
  const packed = Buffer.alloc(compressBound(64 * KIB));
  let sentBytes = 0;
  for (const chunk of chunksOf(file)) {
    const digest = digestOf(chunk);
    if (!known.has(digest)) sentBytes += packer.packedSize(chunk, packed, 3);
    known.add(digest);
  }
  const { user, system } = process.cpuUsage(startedAt);
  return row(`fixed chunks ${data}`, statSync(file).size, sentBytes, (user + system) / 1e6);
}

function digestOf(chunk: Buffer): string {
  return createHash('sha1').update(chunk).digest('base64');
}

function* chunksOf(path: string): Generator<Buffer> {
  const fd = openSync(path, 'r');
  const chunk = Buffer.alloc(64 * KIB);
  for (let got = readSync(fd, chunk); got > 0; got = readSync(fd, chunk)) yield chunk.subarray(0, got);
  closeSync(fd);
}
