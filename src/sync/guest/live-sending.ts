/**
 * What of a running guest's move goes over the link: its images open at the destination, the sender of all of them, and the set-up
 * of its memory. What there is to send, and when it is enough, is live-migration.ts's.
 */

import type { GuestPort, GuestSetUp } from '../../hypervisor/contract';
import { type DwcpError, toDwcpError } from '../../model/errors';
import { type GuestSpec, MEMORY_IMAGE_ID } from '../../model/guest';
import type { ImageSpec, VmImage } from '../../model/image';
import type { ImageProgress, ImageResult } from '../../model/migration';
import type { MigrationOptions } from '../../model/options';
import { ownValue } from '../../model/own-value';
import type { LevelAndStreams } from '../../model/tiers';
import type { DictionaryKey } from '../../store/dictionaries';
import type { SendingSession } from '../../transport/sending-session';
import { imageResultOf, progressOf, spentOn } from '../source/image-results';
import type { SourceMigration } from '../source/source-migration';
import type { GuestHeadStart } from './guest-head-start';
import { GuestSender } from './guest-sender';
import type { LiveDisks } from './live-disks';
import type { MemoryStream } from './memory-stream';
import type { MoveMode } from './move-mode';

export interface LiveRequest {
  readonly vmId: string;
  readonly dictionaryKey: DictionaryKey | undefined;
  readonly images: readonly (ImageSpec & VmImage)[];
  readonly guest: Pick<GuestSpec, 'ramBlocks'>;
  readonly headStart: GuestHeadStart;
  readonly options: MigrationOptions;
}

/** What is known once the link stands. */
export interface LinkKnown {
  readonly migration: SourceMigration;
  readonly start: LevelAndStreams;
  readonly linkBytesPerSecond: number;
}

/** How what is sent has gone of late. */
export interface SentOfLate {
  /** As it is confirmed; no less than a quarter of what the link is known to carry, since the end of a round sends little. */
  readonly rateBytesPerSecond: number;
  readonly rttMs: number;
  /** Bytes on the wire for each byte of an image that had to be sent. */
  readonly wireShare: (imageId: string) => number;
}

export interface LiveSendingParts {
  readonly request: LiveRequest;
  readonly guest: GuestPort;
  readonly memoryImage: ImageSpec & VmImage;
  readonly memory: MemoryStream;
  readonly disks: LiveDisks;
  readonly mode: MoveMode;
}

export class LiveSending {
  readonly #parts: LiveSendingParts;
  readonly #stopping = new AbortController();
  readonly #opened = new Set<string>();
  #sender: GuestSender | undefined;
  /** What was measured of the link before anything was sent; 0 until then. */
  linkBytesPerSecond = 0;
  #sent: Promise<void> | undefined;
  #setUp: GuestSetUp | undefined;
  #setUpSent: Promise<void> | undefined;

  constructor(parts: LiveSendingParts) {
    this.#parts = parts;
  }

  get sender(): GuestSender | undefined {
    return this.#sender;
  }

  get ofLate(): SentOfLate {
    const stats = this.#sender?.session?.stats;
    return {
      rateBytesPerSecond: Math.max(stats?.goodputBytesPerSecond ?? 0, this.linkBytesPerSecond / 4),
      rttMs: stats?.rttMs ?? 1,
      wireShare: (imageId) => this.#sender?.wireShare(imageId) ?? 1,
    };
  }

  /** When all there will be has been sent and confirmed. */
  get sent(): Promise<void> | undefined {
    return this.#sent;
  }

  /** @param before what the attempts before this one have come to */
  progress(before: readonly ImageProgress[]): readonly ImageProgress[] {
    const sender = this.#sender;
    if (!sender) return before;
    return this.#parts.request.images.map(({ imageId }) =>
      progressOf(sender.progress(imageId), spentOn(before, imageId)),
    );
  }

  results(roots: Readonly<Record<string, string>>, before: readonly ImageProgress[]): readonly ImageResult[] {
    const sender = this.#sender;
    if (!sender) return [];
    return this.#parts.request.images.map(({ imageId, kind }) =>
      imageResultOf(sender.result(imageId, ownValue(roots, imageId) ?? ''), kind, spentOn(before, imageId), 1),
    );
  }

  get setUpSent(): Promise<void> | undefined {
    return this.#setUpSent;
  }

  get allOpened(): boolean {
    return this.#opened.size === this.#parts.request.images.length;
  }

  /** Says when nothing is sent any more. */
  get stopped(): AbortSignal {
    return this.#stopping.signal;
  }

  stop(reason: unknown): void {
    this.#stopping.abort(reason);
  }

  /** @param failed hears what ends the sending */
  async begin({ migration, start, linkBytesPerSecond }: LinkKnown, failed: (error: DwcpError) => void): Promise<void> {
    const { request, guest, memory, memoryImage, disks, mode } = this.#parts;
    const { images, vmId, dictionaryKey, headStart, options } = request;
    const ports = await guest.watchDisks(images.filter(({ kind }) => kind === 'disk'));
    mode.throwIfEnded();
    for (const image of images) {
      const port = ports.get(image.imageId);
      if (port) disks.add(image, port);
    }
    this.#sender = new GuestSender(migration, {
      vmId,
      dictionaryKey,
      versions: memory.settled.versions,
      references: options.enableDeltaSync ? headStart.references : undefined,
      diskPaths: images.filter(({ kind }) => kind === 'disk').map(({ path }) => path),
      images: [
        ...disks.all.map(({ image, feed }) => ({ image: specOf(image), feed })),
        { image: specOf(memoryImage), feed: memory.feed },
      ],
      start,
      options,
      linkBytesPerSecond,
      opened: async (imageId, held, source, pages) => {
        await disks.beginScan(imageId, (block) => held.isZero(block));
        if (imageId === MEMORY_IMAGE_ID && pages) await memory.settled.meet(held, source, pages);
        this.#opened.add(imageId);
      },
      ready: (session) => session.control.request('guest_ready', {}),
      begun: (session) => this.#sendSetUp(session),
    });
    this.#sent = this.#sender.run(this.#stopping.signal);
    this.#sent.catch((error: unknown) => failed(toDwcpError(error, 'INTERNAL')));
  }

  /** The destination's QEMU is fed from its RAM image, once it has the set-up; batches do not wait for that. */
  setUp(setUp: GuestSetUp): void {
    this.#setUp = setUp;
    const session = this.#sender?.session;
    if (session) this.#sendSetUp(session).catch(() => undefined);
  }

  #sendSetUp(session: SendingSession): Promise<void> {
    if (!this.#setUp) return Promise.resolve();
    const { prefix, sectionId } = this.#setUp;
    this.#setUpSent = session.control.request('guest_begin', { sectionId }, prefix).then(() => undefined);
    this.#setUpSent.catch(() => undefined);
    return this.#setUpSent;
  }
}

function specOf({ imageId, kind, sizeBytes }: ImageSpec): ImageSpec {
  return { imageId, kind, sizeBytes };
}
