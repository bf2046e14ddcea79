/**
 * A guest that is arriving: its QEMU, started paused, and a feeder that hands over what changes in the RAM image. The image
 * file is the truth: a QEMU that dies is started again and given all of it (replay), and so is one that a killed agent has
 * left. The guest runs only after run(), which the point of no return comes before.
 *
 *   begin -> feeding (any number of times, from any QEMU) -> load -> loaded -> run -> running
 *              ^------ QEMU has died: a fresh one, everything fed again ------+
 */
import { unlessAborted } from '../../model/abort';
import { DwcpError, hasCode, toDwcpError } from '../../model/errors';
import type { RamLayout } from '../../model/guest';
import { type Signal, signal } from '../../system/signal';
import type { DeviceState, GuestReceiver, GuestSetUp, ProcessIdentity, WholePlaces } from '../contract';
import { type IncomingCommand, startFedQemu } from './fed-qemu';
import { endIncoming, quitGuest } from './guest-process';
import { removeTpm } from './guest-tpm';
import type { IncomingMigration } from './incoming-migration';
import { answers, endedBefore, letRun, ownDisks, sameState } from './loaded-guest';
import { isAlive } from './process-table';
import { QmpClient } from './qmp-client';
import { runPlaces } from './run-places';
import { UnfedBlocks } from './unfed-blocks';
import { startWholeReceiver, untilWholeLoaded } from './whole-receiver';

/** Blocks fed between two looks at everything else: some milliseconds of work. */
const FEED_BLOCKS = 16;
const MAX_RESTARTS = 3;
/** The next QEMU would say the same. */
const FINAL = ['QEMU_PROTOCOL', 'QEMU_REFUSED', 'GUEST_REFUSED', 'CONFIG_INVALID'] as const;

export interface IncomingGuestOptions extends IncomingCommand {
  readonly layout: RamLayout;
}

export class IncomingGuest implements GuestReceiver {
  readonly #options: IncomingGuestOptions;
  readonly #unfed: UnfedBlocks;
  #setUp: GuestSetUp | undefined;
  #qmp: QmpClient | undefined;
  #incoming: IncomingMigration | undefined;
  #feeding: Promise<void> = Promise.resolve();
  /** Resolves when the QEMU that is being started has taken the set-up. */
  #opened: Signal = signal();
  #active = false;
  #process: ProcessIdentity | undefined;
  /** What its QEMU has loaded, whole; it is of one pause, as the state is. */
  #loaded: DeviceState | 'whole' | undefined;
  #loading = false;
  /** Ends the waiting for a QEMU that is given up. */
  #givenUp = new AbortController();
  /** Grows where what was loaded, or was being loaded, belongs to the past. */
  #attempt = 0;
  #restarts = 0;
  #failed: DwcpError | undefined;
  #closed = false;
  /** The monitor of the QEMU that has the guest, loaded and paused, or running. */
  #holdsGuest: QmpClient | undefined;
  /** The guest was told to run: a QEMU that ends from then on is not replaced. */
  #toldToRun = false;

  constructor(options: IncomingGuestOptions) {
    this.#options = options;
    this.#unfed = new UnfedBlocks(options.layout);
  }

  /**
   * Begins to feed from the image file; asked again with the same set-up it goes on. What was loaded before, or is being loaded
   * now, is of an earlier pause: it ends, and a fresh QEMU is given everything.
   * @param isZero whether a block of the file is known to be zeros: reading a hole costs memory and time
   */
  begin(setUp: GuestSetUp, fd: number, isZero: (block: number) => boolean): void {
    this.#closed = false;
    this.#unfed.readFrom(fd, isZero);
    const known = this.#setUp;
    this.#setUp = setUp;
    this.#failed = undefined;
    this.#restarts = 0;
    if (this.#loading || this.#loaded !== undefined || (known && !known.prefix.equals(setUp.prefix))) this.#supersede();
    this.#kick();
  }

  /** These blocks of the image file have changed and can be read. */
  changed(blocks: readonly number[]): void {
    this.#unfed.mark(blocks);
    this.#kick();
  }

  /**
   * A QEMU stands here that has taken the set-up, or one that has loaded the guest.
   * @throws QEMU_REFUSED with QEMU's reason where it never will; SUPERSEDED where it was given up
   */
  async ready(): Promise<void> {
    while (!this.#incoming && this.#loaded === undefined) {
      if (this.#failed) throw this.#failed;
      if (this.#closed) throw superseded();
      this.#kick();
      await Promise.race([this.#opened.promise, this.#feeding.catch(() => undefined)]);
    }
  }

  /** Bytes of the image, zeros aside, that QEMU has not been given yet. */
  get leftBytes(): number {
    return this.#unfed.leftBytes;
  }

  /** The QEMU that has been given the guest. */
  get process(): ProcessIdentity | undefined {
    return this.#process;
  }

  /**
   * Everything has arrived: feeds what is left, then the device state. The guest is paused and complete. Idempotent.
   * @throws QEMU_REFUSED where QEMU does not take it; SUPERSEDED where begin() or discard() has come in between
   */
  async load(state: DeviceState): Promise<void> {
    if (this.#loaded !== undefined) {
      if (sameState(this.#loaded, state) && (await answers(this.#qmp))) return;
      this.#supersede();
    }
    const attempt = this.#attempt;
    this.#loading = true;
    try {
      while (this.#loaded === undefined) {
        try {
          await this.#loadOnce(state);
          if (attempt === this.#attempt) this.#isLoaded(state);
        } catch (error) {
          if (attempt === this.#attempt) this.#restart(toDwcpError(error, 'QEMU_UNREACHABLE'));
        }
        if (attempt !== this.#attempt) throw superseded();
      }
    } finally {
      if (attempt === this.#attempt) this.#loading = false;
    }
  }

  async #loadOnce(state: DeviceState): Promise<void> {
    await this.#drain();
    const [incoming, qmp] = [this.#incoming, this.#qmp];
    if (!incoming || !qmp)
      throw new DwcpError('QEMU_UNREACHABLE', 'The QEMU that was fed is gone', { side: 'destination' });
    const finished = incoming.finish([state.commands], [state.devices]).then(() => ownDisks(qmp));
    await unlessAborted(finished, this.#givenUp.signal);
    if (this.#incoming === incoming) this.#incoming = undefined;
  }

  /**
   * QEMU receives the guest itself: it waits for its memory at `memoryPath`, and serves its disks for writing at `disksPath`.
   * @param disks image ids by the paths at which the guest has them here
   * @param setUp its memory comes behind its disks: that it will be taken is tried before, with a QEMU that ends again
   */
  async receiveWhole(disks: ReadonlyMap<string, string>, setUp: GuestSetUp | undefined): Promise<WholePlaces> {
    const { runFolder } = this.#options;
    this.#setUp = undefined;
    this.#supersede();
    this.#qmp?.close();
    const places = runPlaces(runFolder);
    await this.#endQemu();
    const began = (process: ProcessIdentity): void => void (this.#process = process);
    if (setUp) {
      const { qmp, process, incoming } = await startFedQemu(this.#options, setUp, began);
      incoming.abort();
      qmp.close();
      await endIncoming(process);
    }
    const { qmp } = await startWholeReceiver(this.#options, disks, began);
    this.#qmp = qmp;
    return { memoryPath: places.incomingPath, disksPath: places.nbdPath };
  }

  /** What QEMU receives itself has arrived and is loaded; the guest is paused and complete. Idempotent. @throws QEMU_REFUSED */
  async loadWhole(): Promise<void> {
    const [qmp, attempt] = [this.#qmp, this.#attempt];
    if (!qmp) throw new DwcpError('GUEST_LOST', 'No QEMU receives the guest', { side: 'destination' });
    const loaded = untilWholeLoaded(qmp).then(() => ownDisks(qmp));
    await unlessAborted(loaded, this.#givenUp.signal);
    if (attempt !== this.#attempt) throw superseded();
    this.#isLoaded('whole');
  }

  #isLoaded(state: DeviceState | 'whole'): void {
    this.#loaded = state;
    this.#holdsGuest = this.#qmp;
  }

  /**
   * Connects to a QEMU that an earlier agent has left loaded and paused, or running. Any other that listens there is not it.
   * @returns undefined where it has ended, `neither` where it lives and has no guest to let run
   * @throws QEMU_UNREACHABLE, QEMU_TIMEOUT where it lives and does not answer
   */
  async adopt(process: ProcessIdentity): Promise<'loaded' | 'running' | 'neither' | undefined> {
    if (!isAlive(process)) return undefined;
    try {
      if (!this.#qmp || this.#qmp.ended)
        this.#qmp = await QmpClient.connect(runPlaces(this.#options.runFolder).qmpPath);
      const { status, running } = await this.#qmp.execute('query-status');
      this.#process = process;
      if (!running && status !== 'paused') return 'neither';
      this.#holdsGuest = this.#qmp;
      return running ? 'running' : 'loaded';
    } catch (error) {
      if (!isAlive(process)) return undefined;
      throw error;
    }
  }

  /**
   * Lets the guest run; past the point of no return only. Idempotent. @returns QEMU's time of it, once it has been seen to
   * @throws QEMU_REFUSED where it has not run: QEMU says so, or the one that had loaded it has ended since
   */
  async run(): Promise<{ resumedAtMs: number; responds: boolean }> {
    const qmp = this.#holdsGuest;
    if (!qmp || qmp.ended) throw endedBefore();
    const before = await this.#beforeIsToldToRun(qmp);
    return before.running ? { resumedAtMs: Date.now(), responds: true } : letRun(qmp);
  }

  async #beforeIsToldToRun(qmp: QmpClient): Promise<{ readonly running: boolean }> {
    this.#toldToRun = true;
    try {
      return await qmp.execute('query-status');
    } catch (error) {
      if (!qmp.ended) throw error;
      // Asked, not told: it has not run, and the next QEMU may have it.
      this.#toldToRun = false;
      throw endedBefore();
    }
  }

  /** Leaves the guest's QEMU as it is. */
  release(): void {
    this.#closed = true;
    this.#incoming = undefined;
    this.#qmp?.close();
  }

  /** What is loaded, or being loaded, is of the past: the next that is loaded is given to a fresh QEMU. */
  breakOff(): void {
    if (this.#loading || this.#loaded !== undefined) this.#supersede();
  }

  /** Ends the guest's QEMU, which has not run. Another may be begun. */
  async discard(): Promise<void> {
    this.#closed = true;
    this.#supersede();
    await this.#feeding.catch(() => undefined);
    this.#qmp?.close();
    await this.#endQemu();
  }

  /** What its QEMU had beside its images: it is another host's. */
  forget(): void {
    removeTpm(runPlaces(this.#options.runFolder));
  }

  /** One that was started here and has not run is ended at once; one that an earlier agent has left, by its monitor. */
  async #endQemu(): Promise<void> {
    if (this.#process) await endIncoming(this.#process);
    else await quitGuest(runPlaces(this.#options.runFolder).qmpPath);
    this.#process = undefined;
  }

  #kick(): void {
    if (this.#active || this.#closed || !this.#setUp || this.#loaded !== undefined || this.#failed) return;
    this.#active = true;
    const attempt = this.#attempt;
    this.#feeding = this.#feed()
      .catch((error: unknown) => {
        if (attempt === this.#attempt) this.#restart(toDwcpError(error, 'QEMU_UNREACHABLE'));
      })
      .finally(() => {
        this.#active = false;
        // What began anew meanwhile found this one at work.
        if (attempt !== this.#attempt) this.#kick();
      });
    this.#feeding.catch(() => undefined);
  }

  async #feed(): Promise<void> {
    await this.#ensureIncoming();
    while (!this.#closed) {
      const incoming = this.#incoming;
      if (!incoming || !this.#unfed.feed(incoming, FEED_BLOCKS)) return;
      await incoming.flush();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async #drain(): Promise<void> {
    do {
      this.#kick();
      await unlessAborted(this.#feeding, this.#givenUp.signal);
      if (this.#failed) throw this.#failed;
      if (this.#closed) throw superseded();
    } while (this.#unfed.some || !this.#incoming);
  }

  async #ensureIncoming(): Promise<void> {
    if (this.#incoming) return;
    if (!this.#setUp)
      throw new DwcpError('QEMU_PROTOCOL', 'The set-up of the guest’s stream has not come', { side: 'destination' });
    this.#qmp?.close();
    await this.#endQemu();
    const { qmp, incoming } = await startFedQemu(this.#options, this.#setUp, (process) => (this.#process = process));
    this.#qmp = qmp;
    this.#unfed.markAll();
    this.#incoming = incoming;
    qmp.onEnd(() => {
      if (this.#qmp !== qmp || this.#closed || this.#toldToRun) return;
      this.#startOver();
      this.#kick();
    });
    this.#opened.resolve();
    this.#opened = signal();
  }

  /** What is being loaded, or is loaded, is of the past: whoever waits for it hears so, and the next is given everything. */
  #supersede(): void {
    this.#attempt += 1;
    this.#loading = false;
    this.#startOver();
  }

  /** The QEMU that was fed is of no use any more: the next is given everything. */
  #startOver(): void {
    this.#givenUp.abort(superseded());
    this.#givenUp = new AbortController();
    this.#incoming?.abort();
    this.#incoming = undefined;
    this.#loaded = undefined;
    this.#holdsGuest = undefined;
    this.#unfed.markAll();
  }

  #restart(error: DwcpError): void {
    if (this.#closed) throw error;
    this.#startOver();
    this.#restarts += 1;
    if (this.#restarts > MAX_RESTARTS || hasCode(error, ...FINAL)) {
      this.#failed = error;
      throw error;
    }
  }
}

function superseded(): DwcpError {
  return new DwcpError('SUPERSEDED', 'The guest was begun anew, or given up', { side: 'destination' });
}
