/**
 * Trains a dictionary for VMs of one type and tenant from pages of their images, with `zstd --train`. Each refresh adds new samples and
 * lets the oldest go. Every eighth page is held out; a dictionary is kept only where frames of those become smaller by 3 % or
 * more. Frames are what dictionaries serve: a page or two, at a low level.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { shareBytes } from '../../encoder/trained-dictionary';
import { DwcpError, errnoOf, messageOf } from '../../model/errors';
import { PAGE_SIZE_BYTES } from '../../model/image';
import { MIB } from '../../model/units';
import {
  type DictionaryKey,
  type DictionaryStore,
  type DictionaryVersion,
  MAX_DICTIONARY_BYTES,
} from '../../store/dictionaries';
import type { CodecPool } from '../codec/codec-pool';
import { filledPages } from '../codec/file-sample';

/** Below it a dictionary costs more than it brings. */
export const LEAST_GAIN = 0.03;
const HOLD_OUT_EVERY = 8;
const PAGES_A_REFRESH = 2048;
const MAX_SAMPLE_BYTES = 32 * MIB;
const LEAST_PAGES = 256;
/** How many places of an image are looked at for one page that is not zeros. */
const TRIES = 8;
const TRAINING_MS = 120_000;
/** Magic number and id: without them zstd takes all that follows as content. */
const HEADER_BYTES = 8;

export interface TrainingReport extends DictionaryKey {
  readonly kept: boolean;
  readonly reason: string;
  readonly samples: number;
  readonly gain: number;
  readonly version?: DictionaryVersion | undefined;
}

/** Pages from all over some image files, zeros left out. */
export async function samplePages(paths: readonly string[], pages: number): Promise<Buffer> {
  const found: Buffer[] = [];
  const wanted = Math.ceil(pages / paths.length);
  for (const path of paths)
    found.push(...(await filledPages(path, (places) => randomPlaces(places, TRIES * wanted), wanted)));
  return Buffer.concat(found);
}

/** None twice: a page that is taken twice would be trained on and held out. */
function* randomPlaces(pages: number, tries: number): Generator<number> {
  const looked = new Set<number>();
  for (let tried = 0; tried < tries; tried += 1) {
    const place = Math.floor(Math.random() * pages);
    if (looked.has(place)) continue;
    looked.add(place);
    yield place;
  }
}

/** Adds samples of images to those of the type, and trains. @throws TOOL_MISSING where zstd is not installed */
export async function refreshDictionary(
  key: DictionaryKey,
  paths: readonly string[],
  store: DictionaryStore,
  pool: CodecPool,
): Promise<TrainingReport> {
  const pages = await samplePages(paths, PAGES_A_REFRESH);
  return trainDictionary(key, pages, store, pool);
}

/** @param pages new samples of 4 KiB, one behind the other; a rest is left out */
export async function trainDictionary(
  key: DictionaryKey,
  pages: Buffer,
  store: DictionaryStore,
  pool: CodecPool,
): Promise<TrainingReport> {
  const folder = store.samplesFolder(key);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (pages.length >= PAGE_SIZE_BYTES)
    await writeFile(
      join(folder, `${String(Date.now()).padStart(15, '0')}.pages`),
      pages.subarray(0, pages.length - (pages.length % PAGE_SIZE_BYTES)),
      { mode: 0o600 },
    );
  const { training, heldOut } = split(await keptSamples(folder));
  const samples = (training.length + heldOut.length) / PAGE_SIZE_BYTES;
  if (samples < LEAST_PAGES)
    return {
      ...key,
      kept: false,
      reason: `${samples} pages are too few to train on; ${LEAST_PAGES} are needed`,
      samples,
      gain: 0,
    };
  const { bytes, gain } = await best(await trained(training), heldOut, pool);
  const current = await store.current(key);
  if (gain < LEAST_GAIN)
    return {
      ...key,
      kept: false,
      reason: `gains ${(100 * gain).toFixed(1)} % on pages held out, less than ${100 * LEAST_GAIN} %`,
      samples,
      gain,
    };
  const before = current && (await gainOf(current.dictionary.bytes, heldOut, pool));
  if (before !== undefined && before >= gain)
    return {
      ...key,
      kept: false,
      reason:
        `version ${current?.described.version ?? 0} gains ${(100 * before).toFixed(1)} % on the same pages, the new ` +
        `one ${(100 * gain).toFixed(1)} %`,
      samples,
      gain,
      version: current?.described,
    };
  const version = await store.put(key, bytes, samples, gain);
  return { ...key, kept: true, reason: `gains ${(100 * gain).toFixed(1)} % on pages held out`, samples, gain, version };
}

/** With its entropy tables, which serve pages that are alike, or as content alone, which serves mixed ones better. */
async function best(
  dictionary: Buffer,
  heldOut: Buffer,
  pool: CodecPool,
): Promise<{ readonly bytes: Buffer; readonly gain: number }> {
  const content = dictionary.subarray(HEADER_BYTES);
  const [withTables, alone] = [await gainOf(dictionary, heldOut, pool), await gainOf(content, heldOut, pool)];
  return withTables >= alone ? { bytes: dictionary, gain: withTables } : { bytes: content, gain: alone };
}

/** All samples of a type, the newest first, and no more than there is room for: older files go. */
async function keptSamples(folder: string): Promise<Buffer> {
  const files = (await readdir(folder))
    .filter((name) => name.endsWith('.pages'))
    .sort()
    .reverse();
  const kept: Buffer[] = [];
  let total = 0;
  for (const name of files) {
    const path = join(folder, name);
    total += (await stat(path)).size;
    if (total > MAX_SAMPLE_BYTES && kept.length > 0) await rm(path);
    else kept.push(await readFile(path));
  }
  return Buffer.concat(kept);
}

function split(pages: Buffer): { readonly training: Buffer; readonly heldOut: Buffer } {
  const parts: { training: Buffer[]; heldOut: Buffer[] } = { training: [], heldOut: [] };
  for (let at = 0, page = 0; at < pages.length; at += PAGE_SIZE_BYTES, page += 1)
    parts[page % HOLD_OUT_EVERY === 0 ? 'heldOut' : 'training'].push(pages.subarray(at, at + PAGE_SIZE_BYTES));
  return { training: Buffer.concat(parts.training), heldOut: Buffer.concat(parts.heldOut) };
}

async function trained(pages: Buffer): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'dwcp-train-'));
  try {
    const [samples, out] = [join(folder, 'samples'), join(folder, 'dictionary')];
    await writeFile(samples, pages);
    await promisify(execFile)(
      'zstd',
      ['-q', '-T1', '--train', `-B${PAGE_SIZE_BYTES}`, `--maxdict=${MAX_DICTIONARY_BYTES}`, samples, '-o', out],
      { timeout: TRAINING_MS },
    );
    return await readFile(out);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT')
      throw new DwcpError('TOOL_MISSING', 'zstd is needed to train dictionaries and is not installed', {
        hint: 'apt-get install zstd',
        cause,
      });
    throw new DwcpError('ENCODER_FAILED', `zstd --train failed: ${messageOf(cause).slice(0, 300)}`, { cause });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function gainOf(dictionary: Buffer, pages: Buffer, pool: CodecPool): Promise<number> {
  const { plainBytes, withBytes } = await pool.run({
    kind: 'dictionaryGain',
    dictionary: shareBytes(dictionary),
    pages: shareBytes(pages),
  });
  return plainBytes === 0 ? 0 : 1 - withBytes / plainBytes;
}
