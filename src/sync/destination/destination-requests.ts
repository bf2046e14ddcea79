/**
 * What a source asks over a session, and how the destination answers: one handler for each request of protocol.ts. What is
 * asked of a migration goes to its own object; who owns the VM is settled by the hub, whoever asks.
 */
import { HASH_BYTES } from '../../encoder/hash';
import { keyedPageHashes } from '../../encoder/keyed-hash';
import { compressBound, Packer } from '../../encoder/packer';
import { shareDictionary } from '../../encoder/trained-dictionary';
import { DwcpError } from '../../model/errors';
import { baseMark } from '../../store/base-disks';
import type { Answer, Message } from '../../transport/control-channel';
import type { ReceivingSession } from '../../transport/receiving-session';
import {
  abandonSchema,
  basePagesSchema,
  dictionarySchema,
  finishImageSchema,
  guestBeginSchema,
  guestLoadSchema,
  installImageSchema,
  MAX_PAGE_HASH_BLOCKS,
  MAX_SAMPLE_BYTES,
  manifestRequestSchema,
  openImageSchema,
  pageHashesSchema,
  prepareSchema,
  readBody,
  referencesSchema,
  type TakenOver,
  takeOverSchema,
} from '../protocol';
import type { DestinationMigration } from './destination-migration';
import type { DestinationContext } from './destination-record';
import { assertImagesFree, type Records } from './direct-sessions';
import type { IncomingMigrations } from './incoming-migrations';
import type { WorkingImage } from './working-image';

/** @param sourceHost in whose name the session is */
export type Handler = (
  message: Message,
  session: ReceivingSession,
  signal: AbortSignal,
  sourceHost: string,
) => Promise<Answer>;

/** What decides who owns a VM. */
export const SETTLING: ReadonlySet<string> = new Set(['take_over', 'abandon']);
/** What takes nothing in. */
export const WITHOUT_RECORD: ReadonlySet<string> = new Set(['prepare', 'train']);

/** What requests ask of the hub. */
export interface Requested extends Records {
  readonly incoming: IncomingMigrations;
  readonly hostId: string;
  takeOver(migrationId: string, vmId: string, roots: Readonly<Record<string, string>>): Promise<TakenOver>;
  abandon(migrationId: string, vmId: string, fence: number): Promise<void>;
  yieldStandard(migrationId: string): Promise<void>;
}

export function destinationRequests(hub: Requested, context: DestinationContext): Readonly<Record<string, Handler>> {
  const { incoming } = hub;
  const packer = new Packer();
  const loading = new WeakMap<ReceivingSession, Promise<void>>();

  /** The device state, unpacked, into the guest's QEMU. */
  async function loadState(
    migration: DestinationMigration,
    commandBytes: number,
    totalBytes: number,
    { payload }: Message,
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    const state = Buffer.allocUnsafe(totalBytes);
    if (commandBytes > totalBytes || packer.unpack(payload, state) !== totalBytes)
      throw new DwcpError('PROTOCOL_VIOLATION', 'A device state does not unpack to its length', {
        side: 'destination',
      });
    await migration.loadGuest(state.subarray(0, commandBytes), state.subarray(commandBytes), signal);
  }

  return {
    open_image: async (message, session) => {
      const { imageId, useBaseline } = readBody(openImageSchema, message);
      const migration = await incoming.get(session.id);
      await hub.yieldStandard(session.id);
      let image = await migration.images.image(imageId, useBaseline ? 'baseline' : 'empty');
      if (!image.proof.isGiven) {
        const next = useBaseline ? await image.proof.next(session, message.payload) : undefined;
        if (typeof next === 'object') return { body: { prove: next } };
        if (next === undefined) image = await migration.withoutBaseline(imageId);
      }
      await image.beginPass();
      const root = await context.pool.run({
        kind: 'root',
        hashes: image.held.memory,
        sizeBytes: image.held.sizeBytes,
      });
      const zero = image.isBlank;
      return {
        body: {
          image: migration.record.images.findIndex((spec) => spec.imageId === imageId),
          state: image.state,
          root,
          zero,
          bases: await migration.images.hasBases(),
          pageKey: migration.images.pageKey.toString('hex'),
        },
      };
    },

    manifest: async (message, session) => {
      const { image, first, count } = readBody(manifestRequestSchema, message);
      const { held } = await imageOf(incoming, session, image);
      if (first + count > held.blocks)
        throw new DwcpError('PROTOCOL_VIOLATION', 'The manifest has no such blocks', { side: 'destination' });
      const hashes = held.hashes.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES);
      const packed = Buffer.allocUnsafe(compressBound(hashes.length));
      const bytes = packer.pack(hashes, packed, 1);
      // A copy: the hashes go on changing while the answer waits for the socket.
      return bytes >= 0
        ? { body: { packed: true }, payload: packed.subarray(0, bytes) }
        : { body: { packed: false }, payload: Buffer.from(hashes) };
    },

    page_hashes: async (message, session) => {
      const { image } = readBody(pageHashesSchema, message);
      const working = await imageOf(incoming, session, image);
      const { pageKey } = (await incoming.get(session.id)).images;
      const count = message.payload.length / 4;
      if (!Number.isInteger(count) || count > MAX_PAGE_HASH_BLOCKS)
        throw new DwcpError('PROTOCOL_VIOLATION', `${count} blocks are too many to ask for`, { side: 'destination' });
      const list = Array.from({ length: count }, (_, index) => message.payload.readUInt32BE(index * 4));
      if (list.some((block) => block >= working.held.blocks))
        throw new DwcpError('PROTOCOL_VIOLATION', 'The image has no such blocks', { side: 'destination' });
      return { body: {}, payload: keyedPageHashes(pageKey, Buffer.from(await working.pageDigests(list))) };
    },

    references: async (message, session) => {
      const accepted = await (await incoming.get(session.id)).images.referTo(readBody(referencesSchema, message));
      return { body: { accepted } };
    },

    bases: async (message, session) => {
      const sample = message.payload.subarray(0, MAX_SAMPLE_BYTES);
      const { images } = await incoming.get(session.id);
      const offered = await images.offerBases(Buffer.from(sample));
      return {
        body: {
          bases: offered.map(({ base: { name, root, sizeBytes }, source: { from } }) => ({
            name,
            mark: baseMark(root, images.pageKey),
            sizeBytes,
            from,
          })),
        },
      };
    },

    base_pages: async (message, session) => {
      const { name, first, count } = readBody(basePagesSchema, message);
      const { images } = await incoming.get(session.id);
      const digests = await images.basePages(name);
      if (!digests || (first + count) * HASH_BYTES > digests.length)
        throw new DwcpError('PROTOCOL_VIOLATION', `No such pages of a base ${name} were offered`, {
          side: 'destination',
        });
      const asked = digests.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES);
      return { body: {}, payload: keyedPageHashes(images.pageKey, asked) };
    },

    dictionary: async (message, session) => {
      const { hash } = readBody(dictionarySchema, message);
      const migration = await incoming.get(session.id);
      const { dictionaries } = context;
      const dictionary =
        message.payload.length > 0
          ? await dictionaries.receive(hash, Buffer.from(message.payload))
          : await dictionaries.received(hash);
      if (dictionary) await migration.images.activate(shareDictionary(dictionary));
      return { body: { active: dictionary !== undefined } };
    },

    finish_image: async (message, session) => {
      const { image, root } = readBody(finishImageSchema, message);
      await (await imageOf(incoming, session, image)).finish(root);
      return { body: {} };
    },

    take_over: async (message, session) => {
      const { vmId, roots } = readBody(takeOverSchema, message);
      return { body: await hub.takeOver(session.id, vmId, roots) };
    },

    guest_begin: async (message, session) => {
      const { sectionId } = readBody(guestBeginSchema, message);
      await (await incoming.get(session.id)).beginGuest(Buffer.from(message.payload), sectionId);
      return { body: {} };
    },

    guest_ready: async (_message, session) => {
      await (await incoming.get(session.id)).guestReady();
      return { body: {} };
    },

    guest_left: async (_message, session) => ({ body: { bytes: (await incoming.get(session.id)).guestLeftBytes } }),

    guest_load: async (message, session, signal) => {
      const { commandBytes, totalBytes } = readBody(guestLoadSchema, message);
      const migration = await incoming.get(session.id);
      const load = async (): Promise<void> => {
        const giveBack = context.bookkeeping.take(totalBytes, 'A device state');
        try {
          await loadState(migration, commandBytes, totalBytes, message, signal);
        } finally {
          giveBack();
        }
      };
      // One behind the other: each would have its memory.
      const before = loading.get(session) ?? Promise.resolve();
      const loaded = before.catch(() => undefined).then(load);
      loading.set(session, loaded);
      await loaded;
      return { body: {} };
    },

    keep: async (_message, session) => {
      await (await incoming.get(session.id)).keepAsBaselines();
      return { body: {} };
    },

    prepare: async (message, session, _signal, sourceHost) => {
      const { record } = readBody(prepareSchema, message);
      if (record.migrationId !== session.id || record.sourceHost !== sourceHost)
        throw new DwcpError('PROTOCOL_VIOLATION', 'A session prepares itself, in its own source’s name', {
          side: 'destination',
        });
      const known = await context.registry.find(record.vmId);
      if (known?.presence === 'here')
        throw new DwcpError('VM_EXISTS', `VM ${record.vmId} lives on this host: its images are not overwritten`, {
          side: 'destination',
        });
      await assertImagesFree(hub, record, hub.hostId);
      const images = record.images.map((image) => ({
        ...image,
        path: context.registry.imagePath(undefined, record.vmId, image.imageId),
      }));
      // Images of nobody: a tenant, a guest and how it is started are not for a peer to say.
      await incoming.prepare({ ...record, images });
      return { body: {} };
    },

    install_image: async (message, session) => {
      await (await incoming.get(session.id)).installDirect(readBody(installImageSchema, message).imageId);
      return { body: {} };
    },

    train: (_message, session) => Promise.resolve({ body: { ...(session.takeTrain() ?? { bytes: 0, spanMs: 0 }) } }),

    abandon: async (message, session) => {
      const { vmId, fence } = readBody(abandonSchema, message);
      await hub.abandon(session.id, vmId, fence);
      return { body: {} };
    },
  };
}

async function imageOf(incoming: IncomingMigrations, session: ReceivingSession, number: number): Promise<WorkingImage> {
  const image = await (await incoming.get(session.id)).images.byNumber(number);
  if (!image)
    throw new DwcpError('PROTOCOL_VIOLATION', `Image ${number} is not open, or what it began from is not proven`, {
      side: 'destination',
    });
  return image;
}
