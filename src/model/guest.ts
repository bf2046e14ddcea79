/**
 * A running guest as data: how its QEMU is started and reached, how its memory lies in an image, what it reports while it
 * moves. What a QEMU is asked is src/hypervisor's; when rounds end is convergence.ts.
 */
import { z } from 'zod';
import { guestHardwareSchema } from './guest-hardware';
import { GUEST_STATE_NAMES, type GuestState } from './guest-states';
import { imageIdSchema } from './ids';
import { BLOCK_SIZE_BYTES, MAX_IMAGE_BYTES, MAX_VM_IMAGES } from './image';

/** Not z.base64(), which asks atob(): a workflow has none, and takes everything for malformed then. */
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

const MAX_TAPS = 256;

/** The image that stands for a guest's RAM. */
export const MEMORY_IMAGE_ID = 'memory';

export const diskFormatSchema = z.enum(['raw', 'qcow2']);
export type DiskFormat = z.infer<typeof diskFormatSchema>;

/** How a VM's QEMU is started and reached on the host where it lives. */
export const guestDefinitionSchema = z.strictObject({
  /** Program and arguments, without those that DWCP adds (monitor sockets, -incoming, -S). */
  command: z.array(z.string().max(65_536)).min(1).max(2000),
  /** The QMP socket on which the agent speaks to it. */
  qmpPath: z.string().min(1).max(4096),
});
export type GuestDefinition = z.infer<typeof guestDefinitionSchema>;

export const ramBlockSchema = z.strictObject({
  id: z.string().min(1).max(255),
  usedBytes: z.int().min(1).max(MAX_IMAGE_BYTES),
});
export type RamBlock = z.infer<typeof ramBlockSchema>;

/** A file that a guest reads and never writes, the same on both hosts: what of memory lies in it need not travel. */
export const sharedFileSchema = z.strictObject({
  path: z.string().min(1).max(4096),
  sizeBytes: z.int().min(1).max(MAX_IMAGE_BYTES),
});
export type SharedFile = z.infer<typeof sharedFileSchema>;

/**
 * A file that a guest's command names and that stays where it is, as its source has it: a disc, a base that many start from, a kernel. Its
 * destination has to have the same there. How the mark is made: src/sync/codec/content-mark.ts.
 */
export const guestFileSchema = z.strictObject({
  path: z.string().min(1).max(4096),
  /** Read while the guest runs, or by its QEMU when it begins anew. */
  use: z.enum(['drive', 'start']),
  sizeBytes: z.int().min(0),
  /** Drawn for this file and this look at it. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  mark: z.string().regex(/^[0-9a-f]{32}$/),
});
export type MarkedFile = z.infer<typeof guestFileSchema>;
const guestFilesSchema = z.array(guestFileSchema).max(200);

const diskPathsSchema = z
  .record(imageIdSchema, z.string().min(1).max(4096))
  .refine((paths) => Object.keys(paths).length <= MAX_VM_IMAGES, 'more disks than a VM has');

/** As Linux takes them. */
const interfaceSchema = z.string().regex(/^[\w.@+-]{1,15}$/);
/** In which bridge of its host each tap of a guest's is. */
const bridgesSchema = z
  .record(interfaceSchema, interfaceSchema)
  .refine((bridges) => Object.keys(bridges).length <= MAX_TAPS, 'more taps than a guest has');

/** What the destination has to know of a running guest before anything is sent. */
export const guestSpecSchema = z.strictObject({
  command: guestDefinitionSchema.shape.command,
  /** Formats of disks that are not raw, by image id. */
  formats: z.record(imageIdSchema, diskFormatSchema).optional(),
  qemuVersion: z.string().max(60),
  machine: z.string().max(200),
  /** Files besides the disks that the command names. */
  needsFiles: guestFilesSchema,
  /** None where the stream is not understood. */
  ramBlocks: z
    .array(ramBlockSchema)
    .max(1024)
    .refine(
      (blocks) => blocks.reduce((sum, { usedBytes }) => sum + usedBytes, 0) <= MAX_IMAGE_BYTES,
      'the RAM blocks together are larger than an image may be',
    ),
  /** Why only QEMU itself can move this guest. */
  notUnderstood: z.string().max(2000).optional(),
  /** What its machine consists of while it runs. */
  hardware: guestHardwareSchema,
  /** How its migration stream begins (base64), by which the destination's QEMU can be set up ahead. */
  setUp: z.strictObject({ prefix: z.string().max(2_000_000).regex(BASE64), sectionId: z.int().min(0) }).optional(),
  /** Its read-only drives. */
  sharedFiles: z.array(sharedFileSchema).max(16),
  /** The guest's disks by their places on the source, to be found again in the command. */
  diskPaths: diskPathsSchema,
  bridges: bridgesSchema.optional(),
});
export type GuestSpec = z.infer<typeof guestSpecSchema>;

/** A guest that does not run: what it takes to start it on another host. */
export const stoppedGuestSchema = z.strictObject({
  command: guestDefinitionSchema.shape.command,
  diskPaths: diskPathsSchema,
  bridges: bridgesSchema.optional(),
  /** Disks, by image id, of which the content travels and not the file that holds it. */
  rawDisks: z.array(imageIdSchema).max(MAX_VM_IMAGES),
  needsFiles: guestFilesSchema,
});
export type StoppedGuest = z.infer<typeof stoppedGuestSchema>;

/** RAM blocks one behind the other, each from a whole block of the image on. */
export class RamLayout {
  readonly sizeBytes: number;
  readonly blocks: readonly RamBlock[];
  readonly #starts = new Map<string, number>();

  constructor(blocks: readonly RamBlock[]) {
    this.blocks = blocks;
    let at = 0;
    for (const { id, usedBytes } of blocks) {
      this.#starts.set(id, at);
      at += Math.ceil(usedBytes / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
    }
    this.sizeBytes = at;
  }

  /** Where a RAM block begins in the image. */
  startOf(id: string): number {
    const start = this.#starts.get(id);
    if (start === undefined) throw new RangeError(`no RAM block ${id}`);
    return start;
  }

  /** The RAM block that an offset of the image lies in, and where in it. */
  at(imageOffset: number): { readonly block: RamBlock; readonly offset: number } {
    let low = 0;
    let high = this.blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.startOf(this.blocks[middle]?.id ?? '') <= imageOffset) low = middle;
      else high = middle - 1;
    }
    const block = this.blocks[low];
    if (!block) throw new RangeError('a layout without blocks');
    return { block, offset: imageOffset - this.startOf(block.id) };
  }

  equals(others: readonly RamBlock[]): boolean {
    return (
      others.length === this.blocks.length &&
      others.every(
        ({ id, usedBytes }, index) => this.blocks[index]?.id === id && this.blocks[index].usedBytes === usedBytes,
      )
    );
  }
}

/** How often a guest has stood still for its migration, and how long in all: over all attempts, the last one included. */
const pausesShape = { pauses: z.number().optional(), pausedMs: z.number().optional() };

/** What it was held to in writing to its disks, all of them together; undefined where nothing held it. */
const writeLimitShape = { writeLimitBytesPerSecond: z.number().optional() };

/** What is seen of a guest while it moves. */
export const guestProgressSchema = z.object({
  state: z.enum(GUEST_STATE_NAMES as [GuestState, ...GuestState[]]),
  round: z.number(),
  remainingBytes: z.number(),
  dirtyBytesPerSecond: z.number(),
  rateBytesPerSecond: z.number(),
  expectedDowntimeMs: z.number(),
  /** Share of its processor time that the guest is kept from using, 0 to 1. */
  throttle: z.number(),
  ...writeLimitShape,
  ...pausesShape,
});
export type GuestProgress = z.infer<typeof guestProgressSchema>;

/** What a live migration measured of the guest, for the result. */
export const guestResultSchema = z.object({
  /** Of the last pause: from the source's STOP event to the destination's RESUME event; both hosts' clocks where these are two. */
  downtimeMs: z.number().optional(),
  ...pausesShape,
  rounds: z.number(),
  reason: z.string(),
  /** Whether the guest has been seen to run on the destination. */
  responds: z.boolean(),
  throttle: z.number(),
  ...writeLimitShape,
  /** Of its memory, what it said to be free (free-page hints of a balloon device) and its QEMU left out; nothing where that is none. */
  leftOutBytes: z.number().optional(),
});
export type GuestResult = z.infer<typeof guestResultSchema>;
