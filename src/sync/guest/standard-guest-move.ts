/**
 * The standard transfer of a running guest: QEMU's own migration and its own mirror of each disk, one TCP connection each,
 * carried as they are. Nothing is taken apart, compressed or kept for later; an attempt that breaks begins anew. The rounds
 * are QEMU's, when they end is the same rule as everywhere.
 *
 *   REQUEST guest {} -> QEMU waits there    mirrors: tunnels 2..    memory: tunnel 1    pause -> mirrors end -> REQUEST guest_loaded {}
 */
import type { Server } from 'node:net';
import type { GuestPort, MirrorProgress } from '../../hypervisor/contract';
import { DwcpError } from '../../model/errors';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import { type ImageSpec, PAGE_SIZE_BYTES, type VmImage } from '../../model/image';
import type { ImageProgress, ImageResult } from '../../model/migration';
import type { MigrationOptions } from '../../model/options';
import { until, wait } from '../../system/wait';
import { listenForTunnels, type Tunnel } from '../../transport/tunnel';
import { spentOn, standardProgressOf, standardResultOf } from '../source/image-results';
import type { SourceMigration } from '../source/source-migration';
import { openTunnel, StandardChannel } from '../source/standard-channel';
import type { GuestMove, ReadyToHandOver } from './guest-move';
import { IS_GONE, letRunOn, type PauseBudget, pauseWithin, runsOn } from './guest-pause';
import { GuestPauses } from './guest-pauses';
import { MoveMode } from './move-mode';
import { RoundJudge } from './round-judge';

export interface WholeGuestRequest {
  readonly images: readonly (ImageSpec & VmImage)[];
  readonly options: MigrationOptions;
}

const LOOK_EVERY_MS = 200;
/** Over how long the pace of the stream is averaged. */
const RATE_SPAN_MS = 3_000;

export class WholeGuestMove implements GuestMove {
  readonly pauses = new GuestPauses();
  readonly #migration: SourceMigration;
  readonly #request: WholeGuestRequest;
  readonly #guest: GuestPort;
  readonly #disks: readonly (ImageSpec & VmImage)[];
  readonly #startedAt = performance.now();
  readonly #mirrorTunnels: Tunnel[] = [];
  readonly #paces: { readonly atMs: number; readonly bytes: number }[] = [];
  #channel: StandardChannel | undefined;
  #memory: Tunnel | undefined;
  #server: Server | undefined;
  #mirrors: readonly MirrorProgress[] = [];
  #info = { rounds: 0, remainingBytes: 0, dirtyBytesPerSecond: 0, throttle: 0 };
  readonly #mode = new MoveMode();
  readonly #judge: RoundJudge;
  #failure: DwcpError | undefined;
  /** Its QEMU is gone while it stands still. */
  readonly #lost = new AbortController();
  #breakingOff: Promise<void> | undefined;

  constructor(migration: SourceMigration, request: WholeGuestRequest, guest: GuestPort) {
    this.#migration = migration;
    this.#request = request;
    this.#guest = guest;
    this.#judge = new RoundJudge(request.options, guest);
    this.#disks = request.images.filter(({ kind }) => kind === 'disk');
  }

  get reason(): string {
    return this.#judge.decision?.reason ?? '';
  }

  progress(before: readonly ImageProgress[]): ReturnType<GuestMove['progress']> {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const { remainingBytes, dirtyBytesPerSecond, throttle } = this.#info;
    const images = this.#request.images.map(({ imageId, sizeBytes }) => {
      const doneBytes =
        imageId === MEMORY_IMAGE_ID
          ? this.#mode.step === 'disks'
            ? 0
            : Math.max(0, sizeBytes - remainingBytes)
          : (this.#mirrors.find((mirror) => mirror.imageId === imageId)?.doneBytes ?? 0);
      return standardProgressOf(
        {
          imageId,
          totalBytes: sizeBytes,
          doneBytes: Math.min(doneBytes, sizeBytes),
          linkBytes: this.#linkBytes(imageId),
        },
        spentOn(before, imageId),
        seconds,
      );
    });
    const guest = {
      state: this.#mode.step,
      round: this.#judge.round,
      remainingBytes,
      dirtyBytesPerSecond,
      throttle,
      rateBytesPerSecond: Math.round(this.#rate),
      expectedDowntimeMs: Math.round(this.#judge.decision?.expectedDowntimeMs ?? 0),
      ...this.pauses.soFar(before),
    };
    return { guest, images };
  }

  async rounds(signal: AbortSignal): Promise<void> {
    if (this.#mode.step === 'converged') return;
    this.#guest.onFailure((error) => this.#fail(error));
    await this.#guest.runOn();
    this.#channel = await StandardChannel.open(this.#migration, (error) => this.#fail(error));
    await this.#channel.ask({ method: 'guest' });
    await this.#mirrorDisks(signal);
    this.#mode.enter('memory');
    this.#memory = await openTunnel(this.#migration, 1, (error) => this.#fail(error));
    this.#memory.ignore();
    const { options } = this.#request;
    await this.#guest.startWhole((chunk) => this.#memory?.send(chunk) ?? Promise.resolve(), options);
    this.#guest.onFailure((error) => this.#fail(error));
    // What asks the destination to take over is there before the guest stands still, also where no DWCP session is let in.
    const { rttMs } = await this.#migration.session('settle');
    await this.#memoryRounds(rttMs, signal);
    this.#mode.enter('converged');
  }

  async pauseGuest(signal: AbortSignal, before: readonly ImageProgress[] = []): Promise<ReadyToHandOver> {
    if (this.#mode.step !== 'converged') throw runsOn('the rounds were not at their end here');
    const pausedAtMs = await pauseWithin(
      this,
      this.#request.options.maxDowntimeMs,
      AbortSignal.any([signal, this.#mode.ending, this.#lost.signal]),
      () => this.#failure,
      (budget) => this.#pauseAndSend(budget),
    );
    return {
      roots: {},
      pausedAtMs,
      guest: {
        ...{ rounds: this.#judge.round, reason: this.reason, throttle: this.#info.throttle },
        ...this.pauses.beforeThis(before),
      },
      images: this.#request.images.map((image) => this.#resultOf(image, before)),
    };
  }

  standsStill(): Promise<boolean> {
    return this.#guest.standsStill();
  }

  breakOff(): Promise<void> {
    if (this.#mode.end()) this.#breakingOff = this.#breakOff();
    return this.#breakingOff ?? Promise.resolve();
  }

  async #breakOff(): Promise<void> {
    try {
      await letRunOn(this.#guest);
    } finally {
      this.#letGo();
    }
  }

  close(): void {
    this.#mode.end();
    this.#letGo();
  }

  async #mirrorDisks(signal: AbortSignal): Promise<void> {
    if (this.#disks.length === 0) return;
    const dial = async (): Promise<Tunnel> => {
      const stream = 2 + this.#mirrorTunnels.length;
      const tunnel = await openTunnel(
        this.#migration,
        stream,
        (error) => this.#mode.step === 'disks' && this.#fail(error),
      );
      this.#mirrorTunnels.push(tunnel);
      return tunnel;
    };
    this.#server = await listenForTunnels(this.#guest.mirrorPath, dial, (error) => this.#fail(error));
    await this.#guest.mirrorDisks(this.#disks);
    const ready = async (): Promise<boolean> => {
      this.#mirrors = await this.#guest.mirrors();
      return this.#mirrors.every((mirror) => mirror.ready);
    };
    await until(ready, { everyMs: LOOK_EVERY_MS, signal, orThrow: () => this.#throwIfFailed() });
  }

  async #memoryRounds(rttMs: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      await wait(LOOK_EVERY_MS, signal);
      this.#throwIfFailed();
      this.#info = await this.#guest.info();
      this.#mirrors = await this.#guest.mirrors();
      this.#notePace();
      const { rounds, remainingBytes, dirtyBytesPerSecond, throttle } = this.#info;
      if (!this.#judge.isOver(rounds)) continue;
      const measured = {
        remainingBytes,
        remainingPages: Math.ceil(remainingBytes / PAGE_SIZE_BYTES),
        dirtyBytesPerSecond,
        rateBytesPerSecond: this.#rate,
        rttMs,
        throttle,
      };
      if (await this.#judge.judge(rounds, measured)) return;
    }
  }

  async #pauseAndSend(budget: PauseBudget): Promise<number> {
    const channel = this.#channel;
    if (!channel) throw new DwcpError('INTERNAL', 'the guest’s transfer has not begun');
    this.#mode.enter('paused');
    let pausedAtMs = 0;
    await this.#guest.pause((atMs) => {
      pausedAtMs = atMs;
      budget.begin(atMs);
    });
    this.#mode.throwIfEnded();
    await this.#guest.finishMirrors();
    this.#mode.throwIfEnded();
    await this.#guest.complete();
    this.#mode.enter('completed');
    await this.#memory?.end();
    await channel.ask({ method: 'guest_loaded' });
    this.#mode.enter('loaded');
    return pausedAtMs;
  }

  get #rate(): number {
    const [first, last] = [this.#paces[0], this.#paces.at(-1)];
    if (!first || !last || last.atMs <= first.atMs) return 0;
    return ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs);
  }

  #notePace(): void {
    const atMs = performance.now();
    this.#paces.push({ atMs, bytes: this.#memory?.bytes ?? 0 });
    while ((this.#paces[0]?.atMs ?? atMs) < atMs - RATE_SPAN_MS) this.#paces.shift();
  }

  /** The mirrors share their tunnels' bytes by the size of the disks. */
  #linkBytes(imageId: string): number {
    if (imageId === MEMORY_IMAGE_ID) return this.#memory?.bytes ?? 0;
    const all = this.#mirrorTunnels.reduce((sum, tunnel) => sum + tunnel.bytes, 0);
    const total = this.#disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    return Math.round(
      (all * (this.#disks.find((disk) => disk.imageId === imageId)?.sizeBytes ?? 0)) / Math.max(1, total),
    );
  }

  #resultOf({ imageId, kind, sizeBytes }: ImageSpec, before: readonly ImageProgress[]): ImageResult {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    return standardResultOf(
      {
        imageId,
        totalBytes: sizeBytes,
        doneBytes: sizeBytes,
        linkBytes: this.#linkBytes(imageId),
        began: 'empty',
        root: '',
        seconds,
      },
      kind,
      spentOn(before, imageId),
      1,
    );
  }

  #letGo(): void {
    const over = new DwcpError('SESSION_LOST', 'The standard transfer has ended');
    for (const tunnel of this.#mirrorTunnels) tunnel.destroy(over);
    this.#memory?.destroy(over);
    this.#channel?.destroy(over);
    this.#server?.close();
    this.#guest.close();
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  #fail(error: DwcpError): void {
    if (this.#mode.ended || this.#mode.step === 'loaded') return;
    this.#failure ??= error;
    // Whoever waits with the guest stopped hears of it at once; once it has completed, its QEMU is not needed any more.
    if (IS_GONE.has(error.code) && this.#mode.step === 'paused') this.#lost.abort(error);
  }
}
