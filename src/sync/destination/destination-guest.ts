/**
 * The guest's part of a destination migration: its disks under the names they keep, its arriving QEMU fed from the RAM image,
 * its device state kept on disk, so that an agent or a QEMU that dies before the guest has run costs time only.
 *
 *   begin(set-up) -> batches -> load(device state): set-up and state on disk -> takeOver: started -> run
 *
 * `started` is written before the guest runs: a QEMU that is gone behind it has run, and the guest is lost as by a crash of
 * the host; without it everything is given to a fresh QEMU, where the RAM image is what was verified.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { quickHash } from '../../encoder/hash';
import type { GuestReceiver, GuestSetUp, ProcessIdentity, WholePlaces } from '../../hypervisor/contract';
import { DwcpError, hasCode, toDwcpError } from '../../model/errors';
import { throwCannotRun } from '../../model/guest-refusals';
import { readIfThere, writeDurably } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import type { WorkingImage } from './working-image';

export interface StartedGuest {
  readonly resumedAtMs: number | undefined;
  readonly responds: boolean;
}

/** How often a guest that has not run is loaded and told to. */
const STARTS = 2;

const stateSchema = z.union([
  z.strictObject({ prefix: z.base64(), sectionId: z.int(), commands: z.base64(), devices: z.base64() }),
  /** QEMU has received and loaded it itself: there is nothing to load it from again. */
  z.strictObject({ whole: z.literal(true) }),
]);
/** Which process has loaded which state: worth nothing once the host has gone down, so it need not be synced. */
const loadedSchema = z.strictObject({ pid: z.int(), startTicks: z.number(), state: z.string() });
const startedSchema = z.strictObject({ resumedAtMs: z.number().optional(), responds: z.boolean() });

export class DestinationGuest {
  readonly #folder: string;
  readonly #receiver: GuestReceiver;
  #setUp: GuestSetUp | undefined;
  #places: WholePlaces | undefined;

  constructor(folder: string, receiver: GuestReceiver) {
    this.#folder = folder;
    this.#receiver = receiver;
  }

  get begun(): boolean {
    return this.#setUp !== undefined;
  }

  begin(prefix: Buffer, sectionId: number, memory: WorkingImage): void {
    this.#setUp = { prefix, sectionId };
    memory.onAccepted((blocks) => this.#receiver.changed(blocks));
    this.#receiver.begin(this.#setUp, memory.fd, (block) => memory.held.isZero(block));
  }

  /** Its QEMU takes what comes. @throws GUEST_REFUSED with QEMU's reason where it never will */
  async ready(): Promise<void> {
    if (this.begun) await this.#receiver.ready().catch(throwCannotRun);
  }

  get leftBytes(): number {
    return this.#receiver.leftBytes;
  }

  /** A source begins anew: the device state of an earlier pause is of no use any more. */
  async forgetState(): Promise<void> {
    await removeDurably(this.#statePath);
  }

  /** All pages have arrived and are verified: the device state goes to disk, and into QEMU. Idempotent. */
  async load(commands: Buffer, devices: Buffer): Promise<void> {
    if (!this.#setUp)
      throw new DwcpError('PROTOCOL_VIOLATION', 'The guest’s set-up has not come', { side: 'destination' });
    const { prefix, sectionId } = this.#setUp;
    const text = JSON.stringify({
      prefix: prefix.toString('base64'),
      sectionId,
      commands: commands.toString('base64'),
      devices: devices.toString('base64'),
    });
    await Promise.all([
      writeDurably(this.#statePath, text),
      this.#receiver.load({ commands, devices }).catch(throwCannotRun),
    ]);
    await this.#rememberLoaded(text);
  }

  /** QEMU receives it by its own means from now on; whatever came before is of no use any more. */
  async receiveWhole(disks: ReadonlyMap<string, string>, setUp: GuestSetUp | undefined): Promise<WholePlaces> {
    this.#setUp = undefined;
    await removeDurably(this.#statePath);
    this.#places = await this.#receiver.receiveWhole(disks, setUp).catch(throwCannotRun);
    return this.#places;
  }

  /** Where what QEMU receives itself goes; undefined where it does not. */
  get wholePlaces(): WholePlaces | undefined {
    return this.#places;
  }

  async loadWhole(): Promise<void> {
    await this.#receiver.loadWhole();
    const text = JSON.stringify({ whole: true });
    await writeDurably(this.#statePath, text);
    await this.#rememberLoaded(text);
  }

  /** Whether QEMU itself has brought it, disks and all. */
  async cameWhole(): Promise<boolean> {
    const state = await this.#state();
    return state !== undefined && 'whole' in state;
  }

  /**
   * Makes sure that a complete, paused QEMU is there. One that has to be loaded anew is given the RAM image only where that is
   * what was verified: a crash of the host leaves some older mixture of it.
   * @param verifiedRoot of the memory, as source and destination have agreed on it
   * @throws INTEGRITY_MISMATCH where that cannot be
   */
  async ensureLoaded(memory: () => Promise<WorkingImage>, verifiedRoot: string | undefined): Promise<void> {
    const state = await this.#state();
    if (!state)
      throw new DwcpError('INTEGRITY_MISMATCH', 'The guest’s device state has not arrived', { side: 'destination' });
    const loaded = await this.#loadedBefore();
    if (loaded && (await this.#receiver.adopt(loaded)) === 'loaded') return;
    if ('whole' in state)
      throw new DwcpError('INTEGRITY_MISMATCH', 'The QEMU that had received the guest has ended', {
        side: 'destination',
      });
    const image = await memory();
    if (verifiedRoot === undefined || image.verifiedRoot !== verifiedRoot)
      throw new DwcpError(
        'INTEGRITY_MISMATCH',
        'The RAM image here is not what was verified, and no QEMU holds the guest any more',
        { side: 'destination' },
      );
    const { prefix, sectionId, commands, devices } = state;
    const fromBase64 = (value: string): Buffer => Buffer.from(value, 'base64');
    if (!this.#setUp) this.begin(fromBase64(prefix), sectionId, image);
    await this.#receiver.load({ commands: fromBase64(commands), devices: fromBase64(devices) });
    await this.#rememberLoaded(JSON.stringify(state));
  }

  /**
   * Past the point of no return: lets the guest run, once. Idempotent.
   * @throws NeverRan where it cannot be started here and has not run: then it may be given back
   */
  async start(memory: () => Promise<WorkingImage>, verifiedRoot: string | undefined): Promise<StartedGuest> {
    const before = await readIfThere(this.#startedPath);
    if (before) return this.#startedBefore(startedSchema.parse(JSON.parse(before.toString('utf8'))));
    for (let left = STARTS; ; left -= 1) {
      try {
        await this.ensureLoaded(memory, verifiedRoot);
      } catch (error) {
        throw neverRan(toDwcpError(error, 'QEMU_UNREACHABLE', { side: 'destination' }));
      }
      await writeDurably(this.#startedPath, JSON.stringify({ responds: false }));
      try {
        const started = await this.#run();
        await writeDurably(this.#startedPath, JSON.stringify(started));
        return started;
      } catch (error) {
        // One that has died since it was loaded is replaced; one that refuses twice will not take it.
        if (!(error instanceof NeverRan) || left <= 1) throw error;
      }
    }
  }

  /** It is here for good: the agent lets go of its monitor. */
  release(): void {
    this.#receiver.release();
  }

  breakOff(): void {
    this.#receiver.breakOff();
  }

  async discard(): Promise<void> {
    this.#setUp = undefined;
    await this.#receiver.discard();
    this.#receiver.forget?.();
    await removeDurably(this.#startedPath, this.#loadedPath, this.#statePath);
  }

  /** A start that was begun before: it runs, or was about to, or has died since. */
  async #startedBefore(started: z.infer<typeof startedSchema>): Promise<StartedGuest> {
    const loaded = await this.#loadedBefore();
    const found = loaded && (await this.#receiver.adopt(loaded));
    if (found === 'loaded')
      return { ...(await this.#run()), ...(started.resumedAtMs !== undefined && { resumedAtMs: started.resumedAtMs }) };
    // It has ended. Whoever waits for a guest in its place waits for nothing.
    if (found === undefined) await this.#receiver.discard();
    return { resumedAtMs: started.resumedAtMs, responds: found === 'running' };
  }

  /** QEMU's own refusal is as good as never having been asked: the guest is paused yet. */
  async #run(): Promise<StartedGuest> {
    try {
      return await this.#receiver.run();
    } catch (error) {
      if (!hasCode(error, 'QEMU_REFUSED')) throw error;
      await removeDurably(this.#startedPath);
      throw neverRan(error);
    }
  }

  async #rememberLoaded(state: string): Promise<void> {
    const { process } = this.#receiver;
    if (process) await writeFile(this.#loadedPath, JSON.stringify({ ...process, state: digestOf(state) }));
  }

  /** The process that has loaded just this state, by its own word. */
  async #loadedBefore(): Promise<ProcessIdentity | undefined> {
    const [text, state] = await Promise.all([readIfThere(this.#loadedPath), readIfThere(this.#statePath)]);
    if (!text || !state) return undefined;
    let value: unknown;
    try {
      value = JSON.parse(text.toString('utf8'));
    } catch {
      return undefined; // Not whole: the host went down while it was written.
    }
    const loaded = loadedSchema.safeParse(value);
    if (!loaded.success || loaded.data.state !== digestOf(state.toString('utf8'))) return undefined;
    return { pid: loaded.data.pid, startTicks: loaded.data.startTicks };
  }

  async #state(): Promise<z.infer<typeof stateSchema> | undefined> {
    const text = await readIfThere(this.#statePath);
    return text && stateSchema.parse(JSON.parse(text.toString('utf8')));
  }

  get #statePath(): string {
    return join(this.#folder, 'guest-state.json');
  }

  get #loadedPath(): string {
    return join(this.#folder, 'guest-loaded.json');
  }

  get #startedPath(): string {
    return join(this.#folder, 'guest-started.json');
  }
}

function digestOf(text: string): string {
  return quickHash(Buffer.from(text)).toString('hex');
}

/** The guest has not run on this host, and cannot: it is its source's again. */
export class NeverRan extends Error {
  readonly reason: DwcpError;

  constructor(reason: DwcpError) {
    super(reason.message);
    this.reason = reason;
  }
}

/** What ends with the agent says nothing about the guest. */
function neverRan(reason: DwcpError): Error {
  return reason.code === 'SUPERSEDED' || reason.code === 'CANCELLED' ? reason : new NeverRan(reason);
}
