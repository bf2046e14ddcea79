/**
 * `npm run bench -- encoding`: what crosses for real data, by DWCP over an emulated link of 100 Mbit/s (a database's
 * files: 20) and 50 ms and by others beside it: memory and disks of real guests at several ages, logs, a database,
 * zeros, numbers, and two versions of one image.
 *
 *   --only TEXT: data with this in its name   --no-guests: without the guests
 *   --data FOLDER: guests' images, made there or kept from before
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ImageKind } from '../src/model/ids';
import type { ImageResult } from '../src/model/migration';
import { GIB, MIB } from '../src/model/units';
import { baselinePathOf } from '../src/store/baselines';
import { changeAnywhere, changeInPlace, writeLogs, writeNumbers, writeUsedPages, writeZeros } from './encoding-data';
import { drawRatios } from './encoding-draw';
import { type GuestData, guestData } from './encoding-guests';
import { casyncRows, chunkRow, deltaRows, zstdRows } from './encoding-peers';
import { type Row, report, say } from './report';
import { cpuSeconds, Stage, type StageHost } from './stage';
import { type LinkSetting, WanLink, wanRefusal } from './wan-link';

/** Where a ratio matters most: the highest rung is for such links. */
const NARROW = '20mbit';
const LINK: LinkSetting = { rate: '100mbit', rateBitsPerSecond: 100e6, rtt: '50ms', loss: '0%', cc: 'cubic' };
const COPY_MS = 60_000;
const VERSIONED_BYTES = 192 * MIB;

interface Image {
  readonly imageId: string;
  readonly kind: ImageKind;
  readonly file: string;
}

export async function benchEncoding(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const valueOf = (flag: string): string | undefined =>
    args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined;
  const link = new WanLink('bench', LINK);
  link.up();
  const stage = new Stage({
    name: 'encoding',
    serverAddress: link.management,
    a: link.a,
    b: link.b,
    agentArgs: ['--keep-baseline-copy', 'auto'],
  });
  try {
    const bench = new EncodingBench(
      stage,
      link,
      valueOf('--only') ?? '',
      valueOf('--data') ?? mkdtempSync(join(tmpdir(), 'dwcp-bench-data-')),
    );
    await stage.start();
    await bench.synthetic();
    if (!args.includes('--no-guests')) await bench.guests();
    bench.rows.push(...(await localTier(bench)));
    report('encoding', bench.rows, json, { link: LINK });
    writeFileSync(join(__dirname, '..', '..', 'bench', 'results', 'encoding.svg'), drawRatios(bench.rows));
    if (valueOf('--data') === undefined) rmSync(bench.folder, { recursive: true, force: true });
  } finally {
    await stage.stop();
    link.down();
  }
}

/** Cold, without a limit, over loopback: the rate of both agents together on this machine's processors, and the encoder's stages. */
async function localTier({ folder, web }: EncodingBench): Promise<Row[]> {
  if (!web) return [];
  const stage = new Stage({ name: 'encoding-local', parent: '/dev/shm' });
  try {
    await stage.start();
    const path = join(stage.a.dataDir, 'images', 'local', 'memory.img');
    mkdirSync(join(path, '..'), { recursive: true });
    execFileSync('cp', ['--sparse=never', web.before.memory, path]);
    await stage.defineVm('local', stage.a, [{ imageId: 'memory', kind: 'memory', path }]);
    const {
      images: [image],
    } = await stage.migrate('local', stage.a, stage.b, { bandwidthLimit: 0 });
    if (!image) throw new Error(`nothing was moved of ${folder}`);
    const { readMs, chooseMs, deltaMs, packMs } = image.encoder.times;
    const row = {
      name: 'dwcp memory web, local tier',
      rawBytes: image.totalBytes,
      linkBytes: image.linkBytes,
      ratio: image.ratio,
      seconds: image.seconds,
      bytesPerSecond: image.totalBytes / image.seconds,
      note: `by the clock; encoder's threads: reading and hashing ${readMs} ms, choosing ${chooseMs}, deltas ${deltaMs}, packing ${packMs}`,
    };
    say(`${row.name}: ${(row.bytesPerSecond / 1e6).toFixed(0)} MB/s; ${row.note}`);
    return [row];
  } finally {
    await stage.stop();
  }
}

class EncodingBench {
  web: GuestData | undefined;
  readonly rows: Row[] = [];
  readonly folder: string;
  readonly #stage: Stage;
  readonly #link: WanLink;
  readonly #only: string;
  #turn = 0;

  constructor(stage: Stage, link: WanLink, only: string, folder: string) {
    this.#stage = stage;
    this.#link = link;
    this.#only = only;
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  async synthetic(): Promise<void> {
    const make: Readonly<Record<string, (path: string) => void>> = {
      zeros: (path) => writeZeros(path, GIB),
      logs: (path) => writeLogs(path, 96 * MIB),
      float32: (path) => writeNumbers(path, 96 * MIB, 4),
      bfloat16: (path) => writeNumbers(path, 96 * MIB, 2),
    };
    for (const [name, write] of Object.entries(make)) {
      if (!name.includes(this.#only)) continue;
      const file = join(this.folder, name);
      write(file);
      await this.#cold(name, [{ imageId: 'vda', kind: name.includes('float') ? 'gpu' : 'disk', file }]);
      rmSync(file);
    }
  }

  async guests(): Promise<void> {
    const guests = await this.#guestData();
    if (!guests) return;
    for (const { role, before, after } of guests) {
      const memory = (file: string): Image => ({ imageId: 'memory', kind: 'memory', file });
      const disk = (file: string): Image => ({ imageId: 'vda', kind: 'disk', file });
      if (this.#only === '' || `memory ${role}`.includes(this.#only))
        await this.#cold(`memory ${role}`, [memory(before.memory)]);
      if (`disk ${role}`.includes(this.#only)) await this.#cold(`disk ${role}`, [disk(before.disk)]);
      if (`memory ${role}, disk there`.includes(this.#only))
        await this.#besideItsDisk(
          `memory ${role}, disk there`,
          disk(before.disk),
          memory(before.memory),
          disk(after.disk),
          memory(after.memory),
        );
    }
    const db = guests.find(({ role }) => role === 'db');
    if (db && 'database files'.includes(this.#only)) {
      const file = join(this.folder, 'shop.db');
      execFileSync('debugfs', ['-R', `dump /srv/db/shop.db ${file}`, db.before.disk], { stdio: 'ignore' });
      const images: readonly Image[] = [{ imageId: 'vda', kind: 'disk', file }];
      this.#link.set('--rate', NARROW);
      await this.#cold('database files', images);
      this.#link.set('--rate', LINK.rate);
      await this.#alone('database files at 100 Mbit/s', images);
    }
    const web = guests.find(({ role }) => role === 'web');
    this.web = web;
    if (!web) return;
    for (const [name, change] of [
      ['10% changed', changeAnywhere],
      ['10% changed in place', changeInPlace],
    ] as const) {
      if (!name.includes(this.#only)) continue;
      const [before, after] = [join(this.folder, 'before'), join(this.folder, 'after')];
      writeUsedPages(web.before.memory, before, VERSIONED_BYTES);
      change(before, after, VERSIONED_BYTES);
      await this.#again(
        name,
        [{ imageId: 'vda', kind: 'disk', file: before }],
        [{ imageId: 'vda', kind: 'disk', file: after }],
      );
      this.#peers(name, before, after);
    }
  }

  async #guestData(): Promise<GuestData[] | undefined> {
    const kept = join(this.folder, 'guests.json');
    if (existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8')) as GuestData[];
    const guests = await guestData(join(this.folder, 'guests'), this.#stage.children);
    if (guests) writeFileSync(kept, JSON.stringify(guests));
    return guests;
  }

  async #alone(name: string, images: readonly Image[]): Promise<void> {
    const { vmId } = await this.#define(images);
    await this.#move(
      name,
      vmId,
      this.#stage.a,
      this.#stage.b,
      images,
      images.map(({ imageId }) => imageId),
    );
    this.#forget(vmId);
  }

  /** With the same data by others. */
  async #cold(name: string, images: readonly Image[]): Promise<void> {
    await this.#alone(name, images);
    const [image] = images;
    if (!image) return;
    this.#add(
      ...zstdRows(name, image.file, this.folder),
      chunkRow(name, undefined, image.file),
      ...casyncRows(name, undefined, image.file, this.folder),
    );
  }

  /** The disk has been there before; memory comes for the first time, refers to it, and comes back three minutes older. */
  async #besideItsDisk(name: string, disk: Image, memory: Image, diskLater: Image, memoryLater: Image): Promise<void> {
    const { a, b } = this.#stage;
    const { vmId, files } = await this.#define([disk]);
    await this.#stage.migrate(vmId, a, b, { bandwidthLimit: 0 });
    await this.#stage.migrate(vmId, b, a, { bandwidthLimit: 0 });
    const memoryFile = this.#copy(vmId, memory);
    await this.#stage.defineVm(vmId, a, [
      { imageId: 'vda', kind: 'disk', path: files[0] ?? '' },
      { imageId: 'memory', kind: 'memory', path: memoryFile },
    ]);
    await this.#move(name, vmId, a, b, [disk, memory], ['memory']);
    await this.#olderBack(name.replace(', disk there', ' after 3 min'), vmId, [diskLater, memoryLater]);
    this.#peers(name.replace(', disk there', ' after 3 min'), memory.file, memoryLater.file);
    this.#forget(vmId);
  }

  /** A version goes there, the next one comes back. */
  async #again(name: string, images: readonly Image[], later: readonly Image[]): Promise<void> {
    const { vmId } = await this.#define(images);
    await this.#stage.migrate(vmId, this.#stage.a, this.#stage.b, { bandwidthLimit: 0 });
    await this.#olderBack(name, vmId, later);
    this.#forget(vmId);
  }

  async #olderBack(name: string, vmId: string, later: readonly Image[]): Promise<void> {
    // A working guest changes a little at a time; here everything changes at once, and the copy has to be whole by then.
    for (const { imageId } of later)
      for (
        const deadline = Date.now() + COPY_MS;
        !existsSync(baselinePathOf(this.#stage.imageOnB(vmId, imageId))) && Date.now() < deadline;
      )
        await new Promise((resolve) => setTimeout(resolve, 100));
    for (const { imageId, file } of later)
      execFileSync('dd', [
        `if=${file}`,
        `of=${this.#stage.imageOnB(vmId, imageId)}`,
        'bs=4M',
        'conv=notrunc',
        'status=none',
      ]);
    await this.#move(
      name,
      vmId,
      this.#stage.b,
      this.#stage.a,
      later,
      later.map(({ imageId }) => imageId),
    );
  }

  #peers(name: string, before: string, after: string): void {
    this.#add(
      ...zstdRows(name, after, this.folder),
      ...deltaRows(name, before, after, this.folder),
      chunkRow(name, before, after),
      ...casyncRows(name, before, after, this.folder),
    );
  }

  async #define(images: readonly Image[]): Promise<{ vmId: string; files: string[] }> {
    const vmId = `vm-${(this.#turn += 1)}`;
    const files = images.map((image) => this.#copy(vmId, image));
    await this.#stage.defineVm(
      vmId,
      this.#stage.a,
      images.map(({ imageId, kind }, index) => ({ imageId, kind, path: files[index] ?? '' })),
    );
    return { vmId, files };
  }

  #copy(vmId: string, { imageId, file }: Image): string {
    const folder = join(this.#stage.a.dataDir, 'images', vmId);
    mkdirSync(folder, { recursive: true });
    execFileSync('cp', ['--sparse=never', file, join(folder, `${imageId}.img`)]);
    return join(folder, `${imageId}.img`);
  }

  async #move(
    name: string,
    vmId: string,
    source: StageHost,
    destination: StageHost,
    images: readonly Image[],
    counted: readonly string[],
  ): Promise<void> {
    const agent = this.#stage.agents.get(source.hostId);
    const before = cpuSeconds(agent);
    const result = await this.#stage.migrate(vmId, source, destination, { bandwidthLimit: 0 });
    const used = cpuSeconds(agent) - before;
    const sent = result.images.filter(({ imageId }) => counted.includes(imageId));
    const bytes = (of: (image: ImageResult) => number): number => sent.reduce((sum, image) => sum + of(image), 0);
    let verified = true;
    for (const { imageId, file } of images)
      verified &&=
        (await sha256Of(
          destination === this.#stage.b
            ? this.#stage.imageOnB(vmId, imageId)
            : join(this.#stage.a.dataDir, 'images', vmId, `${imageId}.img`),
        )) === (await sha256Of(file));
    const resent = bytes(({ blocks }) => blocks.resent + blocks.refused);
    const [rawBytes, linkBytes] = [bytes(({ totalBytes }) => totalBytes), bytes((image) => image.linkBytes)];
    this.#add({
      name: `dwcp ${name}`,
      rawBytes,
      linkBytes,
      ratio: rawBytes / linkBytes,
      bytesPerSecond: rawBytes / Math.max(0.01, used),
      seconds: bytes((image) => image.seconds),
      verified,
      note:
        `delta hits ${sent.map(({ deltaHitRate }) => `${(100 * deltaHitRate).toFixed(0)} %`).join(', ')}; level ` +
        `${sent.map(({ level }) => level).join(', ')}; ${whereTo(sent)}` +
        (resent > 0 ? `; ${resent} blocks sent twice` : ''),
    });
  }

  #add(...rows: readonly Row[]): void {
    for (const row of rows) {
      this.rows.push(row);
      say(
        `${row.name.padEnd(44)} ${((row.linkBytes ?? 0) / 1e6).toFixed(2).padStart(9)} MB  ` +
          `${(row.ratio ?? 0).toFixed(2).padStart(9)}  ${((row.bytesPerSecond ?? 0) / 1e6).toFixed(0).padStart(6)} MB/s  ` +
          (row.note ?? ''),
      );
      if (row.verified === false) throw new Error(`${row.name}: what arrived is not what was sent`);
    }
  }

  #forget(vmId: string): void {
    for (const { dataDir } of [this.#stage.a, this.#stage.b])
      rmSync(join(dataDir, 'images', vmId), { recursive: true, force: true });
  }
}

/** Megabytes by encoding, those that matter. */
function whereTo(images: readonly ImageResult[]): string {
  const names = ['full', 'pages', 'runDelta', 'oldPages', 'references'] as const;
  return names
    .map((name) => [name, images.reduce((sum, { encoder }) => sum + encoder.bytes[name], 0)] as const)
    .filter(([, bytes]) => bytes >= 50_000)
    .map(([name, bytes]) => `${name} ${(bytes / 1e6).toFixed(1)}`)
    .join(', ');
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 4 * MIB }), hash);
  return `${statSync(path).size} ${hash.digest('hex')}`;
}
