/**
 * `npm run bench -- levels`: the level that is chosen while it runs, against each fixed one, at six link speeds. Memory of the
 * guests of `bench -- encoding` (--data FILE, else logs) goes from this process to an agent's parts in another
 * over loopback, the link's rate held by the limit; receiver and sender share this machine's processors.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openHost } from '../src/agent/host';
import { type Child, Children } from '../src/cli/demo/children';
import { freePort } from '../src/control/embedded-server';
import { compileMigrationOptions, PROCESS_OPTIONS, withDefaults } from '../src/model/options';
import { LEVEL_LADDER, selectLevelAndStreams, TIERS } from '../src/model/tiers';
import { MIB } from '../src/model/units';
import { ScanFeed } from '../src/sync/feeds/block-feed';
import { ImageSender } from '../src/sync/source/image-sender';
import { SourceMigration } from '../src/sync/source/source-migration';
import { mintGrant } from '../src/transport/grants';
import { TrustFolder } from '../src/trust/trust-folder';
import { benchFolder } from './bench-folder';
import { writeLogs } from './encoding-data';
import { textOf } from './flags';
import { type Row, report, say } from './report';

const SPEEDS: readonly (readonly [string, number, number])[] = [
  ['20mbit', 20e6, 48],
  ['50mbit', 50e6, 96],
  ['100mbit', 100e6, 192],
  ['300mbit', 300e6, 384],
  ['1gbit', 1e9, 768],
  ['2.5gbit', 2.5e9, 1024],
];
const ROUND_TRIP_MS = 30;

export async function benchLevels(json: boolean, args: readonly string[]): Promise<void> {
  const folder = benchFolder('levels');
  const children = new Children(join(folder, 'logs'));
  const data = textOf(args, '--data');
  const bench = new LevelsBench(folder, children, data);
  try {
    const only = textOf(args, '--only');
    for (const [name, bitsPerSecond, sizeMiB] of SPEEDS)
      if (name.includes(only)) await bench.speed(name, bitsPerSecond, sizeMiB * MIB);
    report('levels', bench.rows, json, { roundTripMs: ROUND_TRIP_MS });
  } finally {
    await children.stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}

class LevelsBench {
  readonly rows: Row[] = [];
  readonly #folder: string;
  readonly #children: Children;
  readonly #data: string;
  #turn = 0;

  constructor(folder: string, children: Children, data: string) {
    this.#folder = folder;
    this.#children = children;
    this.#data = data;
  }

  async speed(name: string, bitsPerSecond: number, sizeBytes: number): Promise<void> {
    const image = join(this.#folder, 'image');
    this.#write(image, sizeBytes);
    const times = new Map<string, Row>();
    // Twice each, the better one counts: what else the machine does is not the level's doing.
    for (let run = 0; run < 2; run += 1) {
      for (const level of ['chosen', ...LEVEL_LADDER] as const) {
        const row = await this.#send(image, sizeBytes, bitsPerSecond / 8, level === 'chosen' ? undefined : level);
        const known = times.get(String(level));
        if (!known || (row.seconds ?? 0) < (known.seconds ?? 0)) times.set(String(level), row);
      }
    }
    const fixed = LEVEL_LADDER.map((level) => times.get(String(level))?.seconds ?? Infinity);
    for (const [level, row] of times) {
      const over =
        level === 'chosen'
          ? {
              ratio: (row.seconds ?? 0) / Math.min(...fixed),
              note: `time over that of the best fixed level is the ratio; ${row.note ?? ''}`,
            }
          : {};
      this.rows.push({ ...row, ...over, name: `${level === 'chosen' ? 'dwcp' : `level ${level}`} ${name}` });
      say(
        `${this.rows.at(-1)?.name ?? ''}: ${row.seconds?.toFixed(2) ?? ''} s, ` +
          `${((row.linkBytes ?? 0) / 1e6).toFixed(1)} MB ` +
          (level === 'chosen' ? `, ${((row.seconds ?? 0) / Math.min(...fixed)).toFixed(3)} of the best` : ''),
      );
    }
  }

  async #send(image: string, sizeBytes: number, bytesPerSecond: number, fixedLevel: number | undefined): Promise<Row> {
    const turn = (this.#turn += 1);
    const port = await freePort();
    const receiver = this.#children.start(`receive-${turn}`, process.execPath, [
      join(__dirname, 'transport-ends.js'),
      'receive',
      JSON.stringify({ dataDir: join(this.#folder, `b-${turn}`), port }),
    ]);
    const agentKey = Buffer.from(await firstKey(receiver), 'hex');
    const dataDir = join(this.#folder, `a-${turn}`);
    const host = await openHost(
      withDefaults(PROCESS_OPTIONS, {
        hostId: 'bench-a',
        dataDir,
        listenAddress: '127.0.0.1',
        port: await freePort(),
        trustDir: TrustFolder.make(join(this.#folder, 'trust')).path,
      }),
    );
    try {
      const migrationId = `levels-${turn}`;
      const options = compileMigrationOptions({ bandwidthLimit: bytesPerSecond });
      const migration = new SourceMigration(
        migrationId,
        {
          hostId: 'bench-b',
          address: '127.0.0.1',
          port,
          grant: mintGrant(agentKey, { purpose: 'session', subject: migrationId, holder: 'bench-a' }, 3600e3),
        },
        options,
        host.source,
      );
      const session = await migration.session();
      const spec = { imageId: 'memory', kind: 'memory' as const, sizeBytes };
      await session.control.request('prepare', {
        record: {
          migrationId,
          vmId: migrationId,
          mode: 'direct',
          fence: 0,
          generation: 0,
          sourceHost: 'bench-a',
          images: [{ ...spec, path: '/' }],
        },
      });
      await session.establish(options.minStreams);
      const link = { rttMs: ROUND_TRIP_MS, bandwidthBytesPerSecond: bytesPerSecond };
      const start = {
        ...selectLevelAndStreams(link, options, true),
        maxLevel: TIERS.global.maxLevel,
        ...(fixedLevel !== undefined && { fixedLevel }),
      };
      const feed = await ScanFeed.open(image, sizeBytes);
      const sent = await new ImageSender(migration, {
        vmId: migrationId,
        image: spec,
        path: image,
        feed,
        start,
        options,
        linkBytesPerSecond: bytesPerSecond,
      }).run(new AbortController().signal);
      await feed.close();
      migration.close();
      return {
        name: '',
        seconds: sent.seconds,
        linkBytes: sent.linkBytes,
        rawBytes: sizeBytes,
        note: `level ${sent.lastLevel} at the end`,
      };
    } finally {
      await host.close();
      receiver.process.kill('SIGTERM');
      await receiver.ended;
      for (const side of ['a', 'b']) rmSync(join(this.#folder, `${side}-${turn}`), { recursive: true, force: true });
    }
  }

  /** Pages of a guest's memory that are not zeros, over and over; without guests, logs. */
  #write(path: string, sizeBytes: number): void {
    const memory = this.#data;
    if (!existsSync(memory)) {
      writeLogs(path, sizeBytes);
      return;
    }
    const [from, to] = [openSync(memory, 'r'), openSync(path, 'w')];
    const page = Buffer.alloc(4096);
    const zero = Buffer.alloc(4096);
    for (let at = 0, written = 0; written < sizeBytes; at += page.length) {
      if (readSync(from, page, 0, page.length, at) < page.length) at = -page.length;
      else if (!page.equals(zero)) written += writeSync(to, page, 0, page.length);
    }
    closeSync(from);
    closeSync(to);
  }
}

async function firstKey(receiver: Child): Promise<string> {
  for (
    const deadline = Date.now() + 30_000;
    Date.now() < deadline;
    await new Promise((resolve) => setTimeout(resolve, 50))
  ) {
    const key = /"agentKey":"([0-9a-f]+)"/.exec(readFileSync(receiver.logFile, 'utf8'))?.[1];
    if (key !== undefined) return key;
  }
  throw new Error(`the receiver did not start: ${receiver.logFile}`);
}
