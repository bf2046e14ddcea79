/**
 * The nodes that every flow shares, from `initialise AMST` to the verified images, each by its name of docs/migration-protocol.md. What
 * the images are for (a move, a warm-up, a plan) is decided by the workflows that call them.
 */
import { patched } from '@temporalio/workflow';
import type { LinkInput } from '../src/model/activity-inputs';
import type { DwcpError } from '../src/model/errors';
import type { GuestConsole } from '../src/model/guest-console';
import type { HandOver } from '../src/model/hand-over';
import { looksOf } from '../src/model/image';
import type { ImageResult } from '../src/model/migration';
import type { MigrationOptions } from '../src/model/options';
import type { Phase } from '../src/model/phases';
import type { MigrationPlan } from '../src/model/plan';
import { type LevelAndStreams, type LinkMeasurement, selectLevelAndStreams } from '../src/model/tiers';
import { onDestination, onSource, type PreparedSource } from './activity-proxies';
import type { Authority } from './authority';
import { AbortedByOperator, toCoded } from './failures';
import type { MigrationState } from './migration-state';

/** While a host is away or a hand-over in doubt, the parked step is tried again this often by itself. */
const ASK_AGAIN_MS = 60_000;
const MAX_RENEWALS = 10;

export class TransferFlow {
  readonly state: MigrationState;
  readonly options: MigrationOptions;
  readonly authority: Authority;
  link: LinkMeasurement | undefined;
  /** Set before the source is asked to hand over: from then on nothing leads back without a promise. */
  handedOver = false;
  /** The destination's signed word that it never starts the VM. */
  abandoned: string | undefined;
  /** Where the guest's consoles are at the destination. */
  consoles: readonly GuestConsole[] = [];
  #input: LinkInput | undefined;
  #prepared: PreparedSource | undefined;
  #asked = false;

  constructor(state: MigrationState, options: MigrationOptions, authority: Authority) {
    this.state = state;
    this.options = options;
    this.authority = authority;
  }

  get prepared(): PreparedSource {
    if (!this.#prepared) throw new Error('prepare() comes first');
    return this.#prepared;
  }

  get linkInput(): LinkInput {
    if (!this.#input) throw new Error('initialiseAmst() comes first');
    return this.#input;
  }

  /** Whether the destination has been asked to prepare, and so may have something to clean up. */
  get wasInitialised(): boolean {
    return this.#asked;
  }

  /** Start: the source claims the VM (or looks at it), and says what it consists of. */
  async prepare(purpose: 'claim' | 'look'): Promise<PreparedSource> {
    const claim = purpose === 'claim';
    const { migrationId, vmId, sourceHost, destinationHost } = this.state.identity;
    const call = {
      activityId: 'prepare-source',
      summary: claim ? `${sourceHost}: claim ${vmId} for this migration` : `${sourceHost}: look at ${vmId}`,
    };
    this.#prepared = await this.step('start', () =>
      onSource(sourceHost, 'quick', call, this.authority).prepareSource({
        migrationId,
        vmId,
        claim,
        force: this.options.force,
        ...(claim && { destinationHost }),
        ...(claim && this.options.enableDwcp && { ahead: this.options }),
      }),
    );
    return this.#prepared;
  }

  /** A workflow that was reset finds its VM handed over: nothing is sent, the hand-over goes on as it was begun. */
  goOnFrom({ destination }: HandOver): void {
    const { migrationId, vmId } = this.state.identity;
    this.#asked = true;
    this.handedOver = true;
    this.#input = { migrationId, vmId, destination, options: this.options, mode: 'migrate' };
  }

  /** Both sides prepare: place and promise at the destination, and a grant that lets the source in. */
  async initialiseAmst(): Promise<void> {
    await this.step('initialise_amst', () => this.#prepareDestination());
  }

  async establishStreams(): Promise<void> {
    const { sourceHost, destinationHost } = this.state.identity;
    await this.step('establish_streams', () =>
      onSource(
        sourceHost,
        'quick',
        {
          activityId: 'establish-streams',
          summary: `${sourceHost} → ${destinationHost}: control connection and streams`,
        },
        this.authority,
      ).establishStreams(this.linkInput),
    );
  }

  async detectTier(): Promise<LinkMeasurement> {
    const { sourceHost } = this.state.identity;
    const call = { activityId: 'detect-tier', summary: 'Measure round trip, bandwidth and loss' };
    this.link = await this.step('detect_tier', () =>
      onSource(sourceHost, 'quick', call, this.authority).detectTier(this.linkInput),
    );
    return this.link;
  }

  /** A pure rule; its result shows in the current details and in the input of what follows. */
  selectLevel(link: LinkMeasurement): LevelAndStreams {
    this.state.enter('select_level');
    const start = selectLevelAndStreams(link, this.options, this.options.enableCompression);
    this.state.tier = start.tier;
    return start;
  }

  async checkBaselines(): Promise<void> {
    for (const { imageId } of this.prepared.images)
      await this.step('check_baseline', () => this.#checkBaseline(imageId));
  }

  /** For a guest that runs and changes: its baselines are measured while the streams are established and the link is. */
  async connectAndCheck(): Promise<LinkMeasurement> {
    const { sourceHost, destinationHost } = this.state.identity;
    const establish = {
      activityId: 'establish-streams',
      summary: `${sourceHost} → ${destinationHost}: control connection and streams`,
    };
    const detect = { activityId: 'detect-tier', summary: 'Measure round trip, bandwidth and loss' };
    this.link = await this.step('establish_streams', async () => {
      const [link, ...baselines] = await Promise.allSettled([
        onSource(sourceHost, 'quick', establish, this.authority)
          .establishStreams(this.linkInput)
          .then(() => onSource(sourceHost, 'quick', detect, this.authority).detectTier(this.linkInput)),
        ...this.prepared.images.map(({ imageId }) => this.#checkBaseline(imageId)),
      ]);
      const failed = baselines.find((result) => result.status === 'rejected');
      if (failed) throw failed.reason;
      if (link.status === 'rejected') throw link.reason;
      return link.value;
    });
    return this.link;
  }

  /** @param setUpSeconds what has gone by until now, of a plan alone: a guest that runs is looked at for its forecast */
  async computePlan(link: LinkMeasurement, start: LevelAndStreams, setUpSeconds?: number): Promise<MigrationPlan> {
    const { sourceHost } = this.state.identity;
    const call = { activityId: 'compute-plan', summary: 'Sample the images: delta or full, bytes and time expected' };
    const level = Math.min(3, start.maxLevel);
    const plan = await this.step('compute_plan', () =>
      onSource(sourceHost, 'long', call, this.authority).computePlan({
        ...this.linkInput,
        images: this.prepared.images,
        link,
        level,
        ...(setUpSeconds !== undefined && { forecast: { setUpSeconds, start } }),
      }),
    );
    this.state.plan = plan;
    return plan;
  }

  /** Disks first: what memory refers to is there already. */
  async transferImages(link: LinkMeasurement, start: LevelAndStreams): Promise<ImageResult[]> {
    const disks = this.prepared.images
      .map((image, number) => ({ ...image, number }))
      .filter(({ kind }) => kind === 'disk');
    return this.#eachImage('transfer', 'HDE encode and AMST transfer', (image, call) => {
      const refersTo = image.kind !== 'disk' && this.options.enableDeltaSync && disks.length > 0;
      return onSource(this.state.identity.sourceHost, 'long', call, this.authority).transferImage({
        ...this.linkInput,
        image,
        start,
        link,
        ...(refersTo && { disks }),
      });
    });
  }

  /** A running guest: disks, then memory in rounds, until it may be paused. @param dwcp without it QEMU itself moves it */
  async guestRounds(dwcp?: { link: LinkMeasurement; start: LevelAndStreams }): Promise<void> {
    const { images, guest } = this.prepared;
    const { sourceHost, vmId } = this.state.identity;
    if (!guest) throw new Error('the VM does not run');
    const call = {
      activityId: dwcp ? 'guest-rounds' : 'standard-guest-rounds',
      summary: `${vmId}: disks, then memory in rounds, while it runs${dwcp ? '' : '; by QEMU itself'}`,
    };
    await this.step(dwcp ? 'transfer' : 'standard_transfer', () =>
      onSource(sourceHost, 'long', call, this.authority).guestRounds({
        ...this.linkInput,
        options: this.options,
        images,
        ...(dwcp && { dwcp }),
      }),
    );
  }

  async standardTransferImages(): Promise<ImageResult[]> {
    return this.#eachImage('standard_transfer', 'standard transfer, one TCP connection', (image, call) =>
      onSource(this.state.identity.sourceHost, 'long', call, this.authority).standardTransferImage({
        ...this.linkInput,
        image,
      }),
    );
  }

  /**
   * Runs one step. What an operator must mend parks the workflow and is tried again; a grant that has run out is
   * renewed; where a host has a new key both are told it; all else leaves with its code.
   */
  async step<T>(phase: Phase, run: () => Promise<T>): Promise<T> {
    this.state.enter(phase);
    for (let renewals = 0, untrusted = 0; ; ) {
      try {
        return await run();
      } catch (error) {
        if (error instanceof AbortedByOperator) throw error;
        const coded = toCoded(error);
        if (coded.code === 'GRANT_INVALID' && renewals++ < MAX_RENEWALS) await this.#prepareDestination();
        else if (this.#mayTellKeys(coded)) await this.#tellKeys(coded, phase, untrusted++ > 0);
        else if (mayPark(coded)) await this.state.park(coded, phase, asksAgain(coded) ? ASK_AGAIN_MS : undefined);
        else throw coded;
      }
    }
  }

  async #checkBaseline(imageId: string): Promise<void> {
    const { migrationId, destinationHost } = this.state.identity;
    const call = {
      activityId: `check-baseline-${imageId}`,
      summary: `${destinationHost}: what is held of ${imageId}?`,
    };
    await onDestination(destinationHost, 'long', call, this.authority).checkBaseline({
      migrationId,
      imageId,
      useBaseline: this.options.enableDeltaSync,
    });
  }

  /** Behind the hand-over nothing is prepared any more: its own steps ask the hosts, each by a warrant. */
  #mayTellKeys({ code }: DwcpError): boolean {
    return code === 'PEER_UNTRUSTED' && this.#input !== undefined && !this.handedOver && patched('keys-anew');
  }

  /**
   * Hosts of other machines know each other by the keys that warrants name. A new one for both lets them know a new key; what it does not
   * mend, and a host that is revoked, waits for an operator.
   */
  async #tellKeys(untrusted: DwcpError, phase: Phase, wait: boolean): Promise<void> {
    for (let parks = wait; ; parks = true) {
      if (parks) await this.state.park(untrusted, phase);
      try {
        await this.#prepareDestination();
        return;
      } catch (error) {
        if (error instanceof AbortedByOperator || toCoded(error).code !== 'NOT_AUTHORISED') throw error;
      }
    }
  }

  async #prepareDestination(): Promise<void> {
    const { migrationId, vmId, sourceHost, destinationHost, mode } = this.state.identity;
    const { images, allocatedBytes, fence, generation, guest, stoppedGuest } = this.prepared;
    const { diskMap, overwriteDisks } = this.options;
    this.#asked = true;
    const call = {
      activityId: 'prepare-destination',
      summary: `${destinationHost}: make room for ${vmId} and let ${sourceHost} in`,
    };
    const prepared = {
      generation,
      images: images.map(({ imageId, kind, sizeBytes }) => ({ imageId, kind, sizeBytes })),
      ...(allocatedBytes && { allocatedBytes }),
      ...looksOf(this.prepared),
      ...(guest && { guest }),
      ...(stoppedGuest && { stoppedGuest }),
      ...(diskMap !== '' && { diskMap }),
      ...(overwriteDisks && { overwriteDisks }),
    };
    this.authority.extend({ fence, prepared });
    const { consoles, ...destination } = await onDestination(
      destinationHost,
      'quick',
      call,
      this.authority,
    ).prepareDestination({
      migrationId,
      vmId,
      mode: mode === 'migrate' ? 'migrate' : 'warm',
      fence,
      sourceHost,
      ...prepared,
      force: this.options.force,
    });
    this.consoles = consoles ?? this.consoles;
    this.#input = {
      migrationId,
      vmId,
      destination: { ...destination, hostId: destinationHost },
      options: this.options,
      mode,
    };
  }

  async #eachImage(
    phase: Phase,
    what: string,
    run: (
      image: PreparedSource['images'][number],
      call: { activityId: string; summary: string },
    ) => Promise<ImageResult>,
  ): Promise<ImageResult[]> {
    const disksFirst = [...this.prepared.images].sort((a, b) => Number(a.kind !== 'disk') - Number(b.kind !== 'disk'));
    const results: ImageResult[] = [];
    for (const image of disksFirst) {
      const call = {
        activityId: `${phase === 'transfer' ? 'transfer' : 'standard'}-${image.imageId}`,
        summary: `${image.imageId}: ${what}`,
      };
      results.push(await this.step(phase, () => run(image, call)));
    }
    return results;
  }
}

function mayPark(error: DwcpError): boolean {
  return error.spec.retry === 'operator' || error.code === 'HANDOVER_IN_DOUBT';
}

/** Causes that may pass without anybody's doing. */
function asksAgain(error: DwcpError): boolean {
  return error.code === 'HOST_UNAVAILABLE' || error.code === 'HANDOVER_IN_DOUBT';
}
