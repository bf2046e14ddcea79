/**
 * The forecast of a running guest's move: its memory looked at twice, its disks in a sample, both packed as a move would pack them; the
 * link filled for a moment; the processors that are left; its earlier moves. What follows from it is src/model/guest-forecast.ts. What
 * cannot be measured is taken as it mostly is, and said.
 *
 *   look -> link, while the guest goes on writing -> pack at each level -> look again -> forecast
 */
import { open } from 'node:fs/promises';
import { blockHash } from '../../encoder/hash';
import type { LookAtMemory } from '../../hypervisor/contract';
import { type DirtySeen, dirtyGrowth } from '../../model/dirty-growth';
import { messageOf } from '../../model/errors';
import type { GuestSpec } from '../../model/guest';
import { forecastGuest, type GuestForecast } from '../../model/guest-forecast';
import { BLOCK_SIZE_BYTES, blockCount, type ImageSpec, PAGE_SIZE_BYTES } from '../../model/image';
import { downtimeFactor, type MoveRow, memoryShareBefore, slownessOf } from '../../model/move-row';
import type { MigrationOptions } from '../../model/options';
import { ownValue } from '../../model/own-value';
import type { ImageSample } from '../../model/plan';
import { LEVEL_LADDER, type LinkMeasurement } from '../../model/tiers';
import { formatBitRate, formatBytes } from '../../model/units';
import { holeRuns } from '../../store/data-runs';
import { Manifest } from '../../store/manifest';
import { openImage } from '../../system/image-roots';
import { until } from '../../system/wait';
import { shareVersions, VersionCache } from '../codec/version-cache';
import { askPageHashes, assumeHeld, learnHeld } from './held-manifest';
import { IdleProcessors } from './idle-processors';
import { assumedLoad, loadOf, type PackedTry, type SampledLoad } from './image-load';
import { rateOf } from './link-survey';
import { type ChangedSample, lookAgain, type MemorySample, takeSample } from './memory-sample';
import { dataBetween, sampleGroups } from './sample-choice';
import { packSample, type SampledBlocks, type SampledFrom } from './sample-encoder';
import { indexSome, type SampleReferences, withWholeIndex } from './sample-references';
import type { SourceMigration } from './source-migration';

export interface GuestPlanRequest {
  readonly vmId: string;
  readonly images: readonly (ImageSpec & { readonly path: string })[];
  readonly guest: GuestSpec;
  readonly options: MigrationOptions;
  readonly link: LinkMeasurement;
  readonly maxLevel: number;
  readonly streams: number;
  /** What has gone by since the plan was asked for. */
  readonly setUpSeconds: number;
  readonly past: readonly MoveRow[];
  readonly look: LookAtMemory | undefined;
}

export interface GuestPlan {
  readonly samples: readonly ImageSample[];
  readonly forecast: GuestForecast;
}

/** Time for the guest to write, between the two looks. */
const BETWEEN_LOOKS_MS = 5_000;
const DISK_SAMPLE_BLOCKS = 512;
/** Of the ladder: between them sizes and times lie in between. */
const LEVELS_TRIED = [-5, 1, 3] as const;
/** Where memory cannot be looked at: of Linux guests with a warm page cache (bench live). */
const ASSUMED_SHARE = { empty: 0.45, resumed: 0.2, baseline: 0.1 } as const;
/** A warm guest's, by bench live; and what of it crosses, where no change was seen to be packed. */
const ASSUMED_DIRTY_BYTES_PER_SECOND = 1e6;
const ASSUMED_DIRTY_LINK_SHARE = 0.5;
/** A disk in another form than raw that the destination holds in some version: what is new of it is not known ahead. */
const ASSUMED_NEW_SHARE = 0.2;
/** So few blocks say nothing of how changes pack. */
const LEAST_CHANGED_BLOCKS = 4;

export async function planGuest(
  migration: SourceMigration,
  request: GuestPlanRequest,
  signal: AbortSignal,
): Promise<GuestPlan> {
  return new GuestPlanner(migration, request).plan(signal);
}

class GuestPlanner {
  readonly #migration: SourceMigration;
  readonly #request: GuestPlanRequest;
  readonly #processors = new IdleProcessors();
  readonly #basis: string[] = [];
  readonly #levels: readonly number[];

  constructor(migration: SourceMigration, request: GuestPlanRequest) {
    this.#migration = migration;
    this.#request = request;
    const tried = LEVELS_TRIED.filter((level) => level <= request.maxLevel && LEVEL_LADDER.includes(level));
    this.#levels = request.options.enableCompression ? tried : tried.slice(0, 1);
  }

  async plan(signal: AbortSignal): Promise<GuestPlan> {
    const { guest, images, options, link, setUpSeconds, past } = this.#request;
    const memory = images.find(({ kind }) => kind === 'memory');
    const sample = memory && (await this.#firstLook(memory.sizeBytes));
    const rateBytesPerSecond = await this.#rate(signal);
    const processors = this.#processors.available(this.#migration.context.pool.threads);
    const paths = [...images.filter(({ kind }) => kind === 'disk'), ...guest.sharedFiles].map(({ path }) => path);
    const references = options.enableDeltaSync ? await indexSome(paths, this.#migration.context.pool) : undefined;
    const loads: SampledLoad[] = [];
    for (const image of images)
      loads.push(image.kind === 'memory' ? await this.#memory(image, sample, references) : await this.#disk(image));
    const dirty = memory && sample ? await this.#secondLook(memory.sizeBytes, sample, signal) : this.#assumedDirty();
    const slowness = slownessOf(past);
    this.#basis.push(
      past.length > 0
        ? `${past.length} earlier ${past.length === 1 ? 'move' : 'moves'} from here to there: ${slowness.toFixed(2)} times what the link ` +
            'or the encoder alone would take'
        : 'no earlier move from here to there',
    );
    const forecast = forecastGuest(
      {
        images: loads.map(({ load }) => load),
        dirty: dirtyGrowth(dirty.seen, memory?.sizeBytes ?? 0),
        dirtyLinkShare: dirty.linkShare,
        rateBytesPerSecond,
        rttMs: link.rttMs,
        setUpSeconds,
        downtimeFactor: downtimeFactor(past),
        slowness,
        options: { ...options, mayThrottle: options.autoConverge },
      },
      { processors, basis: this.#basis },
    );
    return { samples: loads.map((each) => each.sample), forecast };
  }

  async #firstLook(sizeBytes: number): Promise<MemorySample | undefined> {
    const { look, guest } = this.#request;
    if (!look) return undefined;
    try {
      const sample = await takeSample(look, guest.ramBlocks, sizeBytes);
      const bytes = sample.groups.reduce((sum, { input }) => sum + input.byteLength, 0);
      this.#basis.push(`memory: ${formatBytes(bytes)} of ${formatBytes(sizeBytes)} looked at`);
      return sample;
    } catch (error) {
      this.#basis.push(`memory could not be looked at (${messageOf(error).slice(0, 200)}): taken as it mostly is`);
      return undefined;
    }
  }

  /** @returns bytes a second that the link carries, within the limit */
  async #rate(signal: AbortSignal): Promise<number> {
    const { options, link, streams } = this.#request;
    const seen = await rateOf(this.#migration, streams, signal);
    const rate = Math.max(1, seen > 0 ? seen : link.bandwidthBytesPerSecond);
    const limit = options.bandwidthLimit > 0 ? options.bandwidthLimit : Infinity;
    this.#basis.push(
      `link: ${formatBitRate(rate)} over ${streams} streams${rate > limit ? ', more than its limit' : ''}`,
    );
    return Math.min(rate, limit);
  }

  async #memory(
    image: GuestPlanRequest['images'][number],
    sample: MemorySample | undefined,
    references: SampleReferences | undefined,
  ): Promise<SampledLoad> {
    const { store } = this.#migration.context;
    const { vmId, options, past } = this.#request;
    const session = await this.#migration.session();
    const baseline = await store.open(vmId, image.imageId);
    if (!sample) {
      const state = await assumeHeld(session, image, { useBaseline: options.enableDeltaSync, baseline });
      const before = memoryShareBefore(past, vmId, state);
      if (before !== undefined) this.#basis.push('memory: as in its last move');
      return assumedLoad(image, state, before ?? ASSUMED_SHARE[state]);
    }
    const held = await learnHeld(this.#migration, session, image, { useBaseline: options.enableDeltaSync, baseline });
    const kept = held.state === 'empty' ? undefined : await open(image.path, 'r').catch(() => undefined);
    try {
      const from: SampledFrom = {
        file: { fd: -1, sizeBytes: image.sizeBytes },
        held: held.manifest,
        shadow: kept && { fd: kept.fd },
        references: references?.shared,
      };
      const packed = await this.#pack(from, sample.groups, references && { coverage: references.coverage });
      return loadOf(image, held.state, packed, blockCount(image.sizeBytes));
    } finally {
      await kept?.close();
    }
  }

  async #disk(image: GuestPlanRequest['images'][number]): Promise<SampledLoad> {
    const { vmId, options, guest } = this.#request;
    const session = await this.#migration.session();
    const baseline = await this.#migration.context.store.open(vmId, image.imageId);
    const known = { useBaseline: options.enableDeltaSync, baseline };
    const handle = await openImage(image.path);
    try {
      const { size } = await handle.stat();
      const file = { fd: handle.fd, sizeBytes: size };
      const data = dataBetween([...holeRuns(handle.fd, size, BLOCK_SIZE_BYTES)], size);
      const groups = sampleGroups(data, DISK_SAMPLE_BLOCKS).map((list) => ({ list }));
      const dataBlocks = data.reduce((sum, { count }) => sum + count, 0);
      const isRaw = ownValue<unknown>(guest.formats ?? {}, image.imageId) === undefined && size === image.sizeBytes;
      if (isRaw) {
        const held = await learnHeld(this.#migration, session, image, { ...known, feed: { file } });
        const ask = (blocks: readonly number[]) => askPageHashes(session, held.imageNumber, blocks, held.pageKey);
        const packed = await this.#pack({ file, held: held.manifest, askPageHashes: ask }, groups);
        return loadOf(image, held.state, packed, dataBlocks);
      }
      // What its file holds is what has to travel, whatever lies where.
      const state = await assumeHeld(session, image, known);
      const packed = await this.#pack({ file, held: new Manifest(size) }, groups);
      const share = state === 'empty' ? 1 : ASSUMED_NEW_SHARE;
      if (state !== 'empty') this.#basis.push(`${image.imageId}: what is new of it was not looked at`);
      return loadOf(image, state, packed, dataBlocks * share);
    } finally {
      await handle.close();
    }
  }

  /** At each level that the link may ask for. */
  async #pack(
    from: SampledFrom,
    groups: readonly SampledBlocks[],
    { coverage = 1, levels = this.#levels }: { readonly coverage?: number; readonly levels?: readonly number[] } = {},
  ): Promise<readonly PackedTry[]> {
    const { enableCompression, enableDelta, deltaThreshold } = this.#request.options;
    const { pool } = this.#migration.context;
    const tries = [];
    for (const level of levels) {
      const settings = { compress: enableCompression, delta: enableDelta, deltaThreshold, level };
      const packed = await packSample(pool, from, groups, settings);
      tries.push({ ...packed, level, linkBytes: withWholeIndex(packed.linkBytes, packed.referredShare, coverage) });
    }
    return tries;
  }

  async #secondLook(
    sizeBytes: number,
    sample: MemorySample,
    signal: AbortSignal,
  ): Promise<{ readonly seen: readonly DirtySeen[]; readonly linkShare: number }> {
    const { look, guest } = this.#request;
    if (!look) return this.#assumedDirty();
    try {
      const isTime = (): boolean => performance.now() >= sample.atMs + BETWEEN_LOOKS_MS;
      await until(isTime, { everyMs: 50, signal });
      const changes = await lookAgain(look, guest.ramBlocks, sizeBytes, sample);
      const linkShare = await this.#packChanges(sizeBytes, changes);
      this.#basis.push(
        `writing: ${changes.seen.map(({ bytes, seconds }) => `${formatBytes(bytes)} in ${seconds.toFixed(1)} s`).join(', ')}, ` +
          `${(100 * linkShare).toFixed(0)} % of it on the link`,
      );
      return { seen: changes.seen, linkShare };
    } catch (error) {
      signal.throwIfAborted();
      this.#basis.push(`what the guest writes was not seen (${messageOf(error).slice(0, 200)}): taken as it mostly is`);
      return this.#assumedDirty();
    }
  }

  #assumedDirty(): { readonly seen: readonly DirtySeen[]; readonly linkShare: number } {
    return { seen: [{ seconds: 1, bytes: ASSUMED_DIRTY_BYTES_PER_SECOND }], linkShare: ASSUMED_DIRTY_LINK_SHARE };
  }

  /** As a later round packs it: against the version sent before. */
  async #packChanges(sizeBytes: number, { changed, changedPages }: ChangedSample): Promise<number> {
    if (changed.length < LEAST_CHANGED_BLOCKS) return ASSUMED_DIRTY_LINK_SHARE;
    const held = new Manifest(sizeBytes);
    const versions = shareVersions(held.blocks);
    const cache = new VersionCache(versions);
    const rising = [...changed].sort((a, b) => a.block - b.block);
    for (const { block, before } of rising) {
      const hash = blockHash(before);
      held.set(block, hash);
      cache.put(block, hash, before);
    }
    const groups = [];
    for (let at = 0; at < rising.length; at += 32) {
      const some = rising.slice(at, at + 32);
      const input = new SharedArrayBuffer(some.length * BLOCK_SIZE_BYTES);
      const into = Buffer.from(input);
      for (const [index, { now }] of some.entries()) now.copy(into, index * BLOCK_SIZE_BYTES);
      groups.push({ list: some.map(({ block }) => block), input });
    }
    // Once only: what has been packed takes the place of the older version.
    const levels = this.#levels.slice(-1);
    const [packed] = await this.#pack({ file: { fd: -1, sizeBytes }, held, versions }, groups, { levels });
    return Math.min(1, (packed?.linkBytes ?? 0) / (changedPages * PAGE_SIZE_BYTES));
  }
}
