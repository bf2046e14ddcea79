/**
 * The guest's part of a destination migration: its disks under the names they keep, its arriving QEMU fed from the RAM image,
 * its device state kept on disk, so that an agent or a QEMU that dies before the guest has run costs time only.
 *
 *   begin(set-up) -> batches -> load(device state): set-up and state on disk -> takeOver: started -> run
 *
 * `started` is written before the guest runs: a QEMU that is gone behind it has run, and the guest is lost as by a crash of
 * the host; without it everything is given to a fresh QEMU.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { DwcpError } from '../model/errors';
import { readIfThere, writeDurably } from '../store/durable-file';
import type { WorkingImage } from './working-image';

/** What the hypervisor's driver does for an arriving guest. */
export interface GuestReceiver {
  begin(setUp: { readonly prefix: Buffer; readonly sectionId: number }, fd: number, isZero: (block: number) => boolean): void;
  changed(blocks: readonly number[]): void;
  /** Bytes of the RAM image, zeros aside, that QEMU has not been given yet. */
  readonly leftBytes: number;
  load(state: { readonly commands: Buffer; readonly devices: Buffer }): Promise<void>;
  /** QEMU receives the guest by its own means, at these places of this host. @param disks image ids by path */
  receiveWhole(disks: ReadonlyMap<string, string>): Promise<WholePlaces>;
  loadWhole(): Promise<void>;
  /** Finds what an earlier agent has left. */
  adopt(): Promise<'loaded' | 'running' | undefined>;
  run(): Promise<{ resumedAtMs: number; responds: boolean }>;
  release(): void;
  discard(): Promise<void>;
}

export interface WholePlaces {
  readonly memoryPath: string;
  readonly disksPath: string;
}

export interface StartedGuest {
  readonly resumedAtMs: number | undefined;
  readonly responds: boolean;
}

const stateSchema = z.union([
  z.strictObject({ prefix: z.base64(), sectionId: z.int(), commands: z.base64(), devices: z.base64() }),
  /** QEMU has received and loaded it itself: there is nothing to load it from again. */
  z.strictObject({ whole: z.literal(true) }),
]);
const startedSchema = z.strictObject({ resumedAtMs: z.number().optional(), responds: z.boolean() });

export class DestinationGuest {
  readonly #folder: string;
  readonly #receiver: GuestReceiver;
  #setUp: { readonly prefix: Buffer; readonly sectionId: number } | undefined;
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

  get leftBytes(): number {
    return this.#receiver.leftBytes;
  }

  /** All pages have arrived and are verified: the device state goes to disk, and into QEMU. Idempotent. */
  async load(commands: Buffer, devices: Buffer): Promise<void> {
    if (!this.#setUp) throw new DwcpError('PROTOCOL_VIOLATION', 'The guest’s set-up has not come', { side: 'destination' });
    const { prefix, sectionId } = this.#setUp;
    const text = JSON.stringify({ prefix: prefix.toString('base64'), sectionId, commands: commands.toString('base64'), devices: devices.toString('base64') });
    await Promise.all([writeDurably(this.#statePath, text), this.#receiver.load({ commands, devices })]);
  }

  /** QEMU receives it by its own means from now on; whatever came before is of no use any more. */
  async receiveWhole(disks: ReadonlyMap<string, string>): Promise<WholePlaces> {
    this.#setUp = undefined;
    await rm(this.#statePath, { force: true });
    this.#places = await this.#receiver.receiveWhole(disks);
    return this.#places;
  }

  /** Where what QEMU receives itself goes; undefined where it does not. */
  get wholePlaces(): WholePlaces | undefined {
    return this.#places;
  }

  async loadWhole(): Promise<void> {
    await this.#receiver.loadWhole();
    await writeDurably(this.#statePath, JSON.stringify({ whole: true }));
  }

  /** Whether QEMU itself has brought it, disks and all. */
  async cameWhole(): Promise<boolean> {
    const state = await this.#state();
    return state !== undefined && 'whole' in state;
  }

  /** Makes sure that a complete, paused QEMU is there, before the point of no return. @throws INTEGRITY_MISMATCH where it cannot */
  async ensureLoaded(memory: () => Promise<WorkingImage>): Promise<void> {
    const state = await this.#state();
    if (!state) throw new DwcpError('INTEGRITY_MISMATCH', 'The guest’s device state has not arrived', { side: 'destination' });
    if ('whole' in state) {
      if ((await this.#receiver.adopt()) === 'loaded') return;
      throw new DwcpError('INTEGRITY_MISMATCH', 'The QEMU that had received the guest has ended', { side: 'destination' });
    }
    const { prefix, sectionId, commands, devices } = state;
    const fromBase64 = (value: string): Buffer => Buffer.from(value, 'base64');
    if (!this.#setUp) {
      if ((await this.#receiver.adopt()) === 'loaded') return;
      this.begin(fromBase64(prefix), sectionId, await memory());
    }
    await this.#receiver.load({ commands: fromBase64(commands), devices: fromBase64(devices) });
  }

  /** Past the point of no return: lets the guest run, once. Idempotent. */
  async start(memory: () => Promise<WorkingImage>): Promise<StartedGuest> {
    const before = await readIfThere(this.#startedPath);
    if (before) return this.#startedBefore(startedSchema.parse(JSON.parse(before.toString('utf8'))));
    await this.ensureLoaded(memory);
    await writeDurably(this.#startedPath, JSON.stringify({ responds: false }));
    const started = await this.#receiver.run();
    await writeDurably(this.#startedPath, JSON.stringify(started));
    return started;
  }

  /** It is here for good: the agent lets go of its monitor. */
  release(): void {
    this.#receiver.release();
  }

  async discard(): Promise<void> {
    await this.#receiver.discard();
    await rm(this.#statePath, { force: true });
  }

  /** A start that was begun before: it runs, or was about to, or has died since. */
  async #startedBefore(started: z.infer<typeof startedSchema>): Promise<StartedGuest> {
    const found = await this.#receiver.adopt();
    if (found === 'loaded') return { ...(await this.#receiver.run()), ...(started.resumedAtMs !== undefined && { resumedAtMs: started.resumedAtMs }) };
    return { resumedAtMs: started.resumedAtMs, responds: found === 'running' };
  }

  async #state(): Promise<z.infer<typeof stateSchema> | undefined> {
    const text = await readIfThere(this.#statePath);
    return text && stateSchema.parse(JSON.parse(text.toString('utf8')));
  }

  get #statePath(): string {
    return join(this.#folder, 'guest-state.json');
  }

  get #startedPath(): string {
    return join(this.#folder, 'guest-started.json');
  }
}
