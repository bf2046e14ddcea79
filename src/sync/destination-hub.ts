/**
 * The receiving half of an agent: lets connections in, keeps one session per migration, answers the source's requests.
 * The migration's own state is destination-migration.ts; the standard transfer's is standard-receiver.ts.
 */
import { readdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { HASH_BYTES, PAGE_HASH_BYTES } from '../encoder/hash';
import { Packer, compressBound } from '../encoder/packer';
import { shareDictionary } from '../encoder/trained-dictionary';
import { DwcpError, hasCode, toDwcpError } from '../model/errors';
import { DESTINATION_TABLE, destinationState, isRefused } from '../model/ownership-machine';
import { isMissing } from '../store/durable-file';
import type { Answer, Message } from '../transport/control-channel';
import type { Connection } from '../transport/connection';
import type { Admitted } from '../transport/endpoint';
import type { Frame } from '../transport/frame';
import { checkGrant } from '../transport/grants';
import { type Hello, RELEASE, SESSION_PROTOCOL } from '../transport/hello';
import { ReceivingSession } from '../transport/receiving-session';
import type { Slab } from '../transport/slab';
import { Tunnel } from '../transport/tunnel';
import {
  type DestinationContext,
  DestinationMigration,
  type DestinationRecord,
  destinationRecordSchema,
  migrationFolder,
  removeRecord,
} from './destination/destination-migration';
import { assertImagesFree } from './destination/direct-sessions';
import {
  abandonSchema,
  basePagesSchema,
  dictionarySchema,
  finishImageSchema,
  installImageSchema,
  manifestRequestSchema,
  MAX_PAGE_HASH_BLOCKS,
  MAX_SAMPLE_BYTES,
  guestBeginSchema,
  guestLoadSchema,
  openImageSchema,
  pageHashesSchema,
  readBody,
  referencesSchema,
  takeOverSchema,
  type TakenOver,
  takenOverSchema,
} from './protocol';
import { OwnStep } from './hand-over/own-step';
import { SessionWork } from './destination/session-work';
import { StandardReceiver } from './destination/standard-receiver';
import type { WorkingImage } from './destination/working-image';

export interface HubOptions {
  readonly hostId: string;
  readonly key: Buffer;
  readonly acceptDwcp: boolean;
  readonly slab: Slab;
  /** Where a connection goes that a session has given back. */
  readonly giveBack: (connection: Connection) => void;
}

type Handler = (message: Message, session: ReceivingSession, signal: AbortSignal) => Promise<Answer>;

/** What decides who owns a VM. */
const SETTLING: ReadonlySet<string> = new Set(['take_over', 'abandon']);
/** What takes nothing in. */
const WITHOUT_RECORD: ReadonlySet<string> = new Set(['prepare', 'train']);
/** Sessions whose newest attempt is remembered after they have ended. */
const MAX_EPOCHS_KNOWN = 4096;

export class DestinationHub {
  readonly #options: HubOptions;
  readonly #context: DestinationContext;
  readonly #migrations = new Map<string, Promise<DestinationMigration | undefined>>();
  readonly #sessions = new Map<string, ReceivingSession>();
  /** What each session's newest attempt has under way; a newer one begins when that has ended. */
  readonly #works = new Map<string, SessionWork>();
  readonly #newestEpochs = new Map<string, number>();
  readonly #standard = new Map<string, StandardReceiver>();
  readonly #packer = new Packer();

  constructor(options: HubOptions, context: DestinationContext) {
    this.#options = options;
    this.#context = context;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  get streamCount(): number {
    return [...this.#sessions.values()].reduce((sum, session) => sum + session.streamCount, 0);
  }

  /** Makes a migration known; asking again for the same one changes nothing. One object for each, whoever asks. */
  async prepare(record: DestinationRecord): Promise<DestinationMigration> {
    const known = await this.migration(record.migrationId);
    if (known) return known;
    if (this.#migrations.has(record.migrationId)) return this.prepare(record);
    const migration = new DestinationMigration(record, this.#context);
    await this.#keep(record.migrationId, this.#save(migration));
    return migration;
  }

  /** A record that could not be written leaves no folder that would pass for one. */
  async #save(migration: DestinationMigration): Promise<DestinationMigration> {
    try {
      await migration.save();
      return migration;
    } catch (error) {
      await removeRecord(this.#context.dataDir, migration.record.migrationId).catch(() => undefined);
      throw error;
    }
  }

  /** A migration this host takes part in, also one from before a restart. */
  migration(migrationId: string): Promise<DestinationMigration | undefined> {
    return (
      this.#migrations.get(migrationId) ??
      this.#keep(migrationId, DestinationMigration.load(migrationId, this.#context))
    );
  }

  #keep<T extends DestinationMigration | undefined>(migrationId: string, coming: Promise<T>): Promise<T> {
    this.#migrations.set(migrationId, coming);
    const forget = (): void => {
      if (this.#migrations.get(migrationId) === coming) this.#migrations.delete(migrationId);
    };
    coming.then((migration) => migration ?? forget(), forget);
    return coming;
  }

  /** Its record is gone: what still holds the object finds everything said in the journal. */
  async #done(migrationId: string, migration: DestinationMigration): Promise<void> {
    if ((await this.#migrations.get(migrationId)) === migration) this.#migrations.delete(migrationId);
  }

  /**
   * When the agent starts, before it hears of Temporal: completes what a crash has left undone behind a line of the journal.
   * @returns what could not be completed yet; the sweep tries it again
   */
  async recover(): Promise<readonly { readonly migrationId: string; readonly error: DwcpError }[]> {
    const failed: { migrationId: string; error: DwcpError }[] = [];
    for (const migrationId of await this.list()) {
      try {
        if (await this.migration(migrationId)) await this.complete(migrationId);
        // A crash cut it off while it was made or forgotten.
        else await removeRecord(this.#context.dataDir, migrationId);
      } catch (error) {
        failed.push({ migrationId, error: toDwcpError(error, 'INTERNAL', { side: 'destination' }) });
      }
    }
    return failed;
  }

  /** Completes what is behind a line of the journal and was left undone. @returns false where there is nothing of the kind */
  async complete(migrationId: string): Promise<boolean> {
    const migration = await this.migration(migrationId);
    try {
      if (!migration || !(await migration.recover())) return false;
    } catch (error) {
      // It could not be started here and has been given back: that is over too.
      if (migration && hasCode(error, 'ABANDONED')) await this.#done(migrationId, migration);
      throw error;
    }
    await this.#done(migrationId, migration);
    return true;
  }

  /** Another migration with a record here for the same VM, whose files would be in the way. */
  async otherMigrationOf(vmId: string, migrationId: string): Promise<string | undefined> {
    return (await this.recordsOf(vmId)).find((record) => record.migrationId !== migrationId)?.migrationId;
  }

  /** What this host has on record for a VM. */
  async recordsOf(vmId: string): Promise<DestinationRecord[]> {
    const migrations = await Promise.all((await this.list()).map((id) => this.migration(id)));
    return migrations.flatMap((migration) => (migration?.record.vmId === vmId ? [migration.record] : []));
  }

  /** Whether a source holds a session of this id. */
  holds(sessionId: string): boolean {
    return this.#sessions.has(sessionId);
  }

  /** Ids of all migrations with a record on this host. */
  async list(): Promise<string[]> {
    try {
      return await readdir(migrationFolder(this.#context.dataDir));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  /**
   * Takes a VM over, or says that it has been. Past this the source may never resume.
   * @returns the generation of its images and, of a running guest, how it began to run here; @throws ABANDONED, FENCED, INTEGRITY_MISMATCH where it has not been
   */
  async takeOver(migrationId: string, vmId: string, roots: Readonly<Record<string, string>>): Promise<TakenOver> {
    const migration = await this.migration(migrationId);
    if (!migration) {
      const { ownership, registry } = this.#context;
      const last = await ownership.last(vmId, migrationId);
      if (last?.state === 'installed')
        return { generation: (await registry.get(vmId)).generation, ...startedOf(last.note) };
      const step = DESTINATION_TABLE[destinationState(last?.state)].on.take_over;
      throw new DwcpError(
        isRefused(step) ? step.refused : 'MIGRATION_UNKNOWN',
        `This host does not start ${vmId} for migration ${migrationId} (${last?.state ?? 'unknown'})`,
        { side: 'destination' },
      );
    }
    try {
      await migration.takeOver(roots, async () => {
        await this.#standard.get(migrationId)?.yield();
        await this.#works.get(migrationId)?.idle();
      });
    } catch (error) {
      if (hasCode(error, 'ABANDONED')) await this.#done(migrationId, migration);
      throw error;
    }
    await this.#done(migrationId, migration);
    return { generation: migration.record.generation, ...migration.started };
  }

  /**
   * Promises durably not to start the VM for a migration, also one this host has never heard of or has forgotten; what
   * has arrived stays as baseline.
   * @throws ALREADY_PAST_RETURN
   */
  async abandon(migrationId: string, vmId: string, fence: number): Promise<void> {
    const migration = await this.migration(migrationId);
    await this.#standard.get(migrationId)?.yield();
    if (migration) {
      await migration.abandon();
      await this.#done(migrationId, migration);
      return;
    }
    await this.#context.ownership.exclusively(vmId, async (vm) => {
      const own = new OwnStep(
        vm,
        migrationId,
        await vm.last(migrationId),
        'destination',
        DESTINATION_TABLE,
        destinationState,
      );
      own.assert('abandon');
      if (own.state === 'none' || own.state === 'promised') await own.happened('abandon', fence);
    });
  }

  /** Ends a migration's connections. */
  endSession(migrationId: string, error: DwcpError): void {
    this.#sessions.get(migrationId)?.end(error);
    this.#standard.get(migrationId)?.end(error);
  }

  /** Ends a warm-up or a plan: what has arrived stays as baseline, nobody owned anything. */
  async dismiss(migrationId: string): Promise<void> {
    await this.#standard.get(migrationId)?.yield();
    const migration = await this.migration(migrationId);
    await migration?.abandon();
    if (migration) await this.#done(migrationId, migration);
  }

  /** Judges a hello. @throws GRANT_INVALID, HELLO_REFUSED, SUPERSEDED */
  admit(hello: Hello, connection: Connection): Admitted {
    const { key, hostId, acceptDwcp } = this.#options;
    // What settles a hand-over is about a migration that was let in for it, however long ago.
    checkGrant(key, hello.grant, hello.role === 'settle');
    const ofSession = hello.grant.purpose === 'session' && hello.grant.subject === hello.sessionId;
    const ofPeer = hello.grant.purpose === 'peer' && hello.role === 'idle' && hello.grant.subject === hello.sourceHost;
    if (!ofSession && !ofPeer) throw new DwcpError('GRANT_INVALID', 'The token is for another session');
    const independent = hello.role === 'standard' || hello.role === 'settle';
    if (!acceptDwcp && !independent)
      throw new DwcpError('HELLO_REFUSED', `Host ${hostId} accepts no DWCP sessions`, { side: 'destination' });
    if (hello.protocol !== SESSION_PROTOCOL && !independent) {
      throw new DwcpError(
        'PROTOCOL_VERSION',
        `Host ${hostId} speaks version ${SESSION_PROTOCOL} of the session protocol, the source version ${hello.protocol}`,
        { side: 'destination' },
      );
    }
    const welcome = { hostId, release: RELEASE };
    switch (hello.role) {
      case 'idle':
        return { welcome, attach: () => this.#options.giveBack(connection) };
      case 'control':
      case 'settle':
        this.#assertNewest(hello);
        return { welcome, attach: () => this.#openSession(hello, connection) };
      case 'data': {
        const session = this.#sessions.get(hello.sessionId);
        if (session?.epoch !== hello.epoch)
          throw new DwcpError('SUPERSEDED', 'The session of this stream is not open', { side: 'destination' });
        return { welcome, attach: () => session.attach(hello.stream, connection) };
      }
      case 'standard':
        return {
          welcome,
          attach: () =>
            hello.stream === 0 ? this.#openStandard(hello, connection) : this.#openTunnel(hello, connection),
        };
    }
  }

  async close(): Promise<void> {
    const error = new DwcpError('SESSION_LOST', 'The agent stops');
    for (const session of this.#sessions.values()) session.end(error);
    for (const receiver of this.#standard.values()) receiver.end(error);
    for (const loading of this.#migrations.values()) await (await loading)?.close();
  }

  #assertNewest(hello: Hello): void {
    const newest = this.#newestEpochs.get(hello.sessionId) ?? 0;
    if (newest > hello.epoch)
      throw new DwcpError('SUPERSEDED', 'A newer attempt of the source has held this session', { side: 'destination' });
  }

  #openSession(hello: Hello, connection: Connection): void {
    const { sessionId, epoch } = hello;
    this.#newestEpochs.delete(sessionId);
    this.#newestEpochs.set(sessionId, epoch);
    for (const oldest of this.#newestEpochs.keys()) {
      if (this.#newestEpochs.size <= MAX_EPOCHS_KNOWN) break;
      this.#newestEpochs.delete(oldest);
    }
    this.#sessions
      .get(sessionId)
      ?.end(new DwcpError('SUPERSEDED', 'A newer attempt of the source took the session over'));
    const work = new SessionWork(this.#works.get(sessionId));
    this.#works.set(sessionId, work);
    const session: ReceivingSession = new ReceivingSession(
      sessionId,
      epoch,
      connection,
      this.#options.slab,
      {
        request: (method, message) => this.#serve(session, work, hello.role, method, message),
        batch: (frame) => work.run(() => this.#takeBatch(sessionId, frame)),
      },
      {
        giveBack: this.#options.giveBack,
        ended: () => {
          void work.end().then(() => {
            if (this.#works.get(sessionId) === work) this.#works.delete(sessionId);
          });
          if (this.#sessions.get(sessionId) === session) this.#sessions.delete(sessionId);
        },
      },
    );
    this.#sessions.set(sessionId, session);
  }

  #openStandard(hello: Hello, connection: Connection): void {
    const { sessionId } = hello;
    const earlier = this.#standard.get(sessionId);
    earlier?.end(new DwcpError('SUPERSEDED', 'A newer attempt of the source took the transfer over'));
    const receiver: StandardReceiver = new StandardReceiver(
      connection,
      this.#options.slab,
      this.#context,
      async () => this.#get(sessionId),
      earlier?.yield() ?? Promise.resolve(),
      () => {
        if (this.#standard.get(sessionId) === receiver) this.#standard.delete(sessionId);
      },
    );
    this.#standard.set(sessionId, receiver);
  }

  /** QEMU's own bytes, to the QEMU that waits for them. @param hello stream 1 brings memory, all others disks */
  #openTunnel({ sessionId, stream }: Hello, connection: Connection): void {
    const tunnel = new Tunnel(connection, () => undefined);
    this.#get(sessionId)
      .then(({ wholePlaces }) => tunnel.join(connect(stream === 1 ? wholePlaces.memoryPath : wholePlaces.disksPath)))
      .catch((error: unknown) => tunnel.destroy(toDwcpError(error, 'INTERNAL')));
  }

  async #takeBatch(sessionId: string, frame: Frame): Promise<readonly number[]> {
    const migration = await this.#get(sessionId);
    const image = await migration.imageByNumber(frame.meta.length >= 2 ? frame.meta.readUInt16BE(0) : 0);
    if (!migration.takesData) await migration.assertTakesData();
    if (!image)
      throw new DwcpError('PROTOCOL_VIOLATION', 'A batch names an image that is not open', { side: 'destination' });
    return image.take(frame);
  }

  async #get(migrationId: string): Promise<DestinationMigration> {
    const migration = await this.migration(migrationId);
    if (!migration)
      throw new DwcpError('MIGRATION_UNKNOWN', `This host takes no part in migration ${migrationId}`, {
        side: 'destination',
      });
    return migration;
  }

  async #serve(
    session: ReceivingSession,
    work: SessionWork,
    role: Hello['role'],
    method: string,
    message: Message,
  ): Promise<Answer> {
    const handler = this.#handlers[method];
    if (!handler || (role === 'settle' && !SETTLING.has(method)))
      throw new DwcpError('PROTOCOL_VIOLATION', `Unknown request ${method.slice(0, 60)}`, { side: 'destination' });
    // Who owns the VM is asked inside its lock, by whichever attempt.
    if (SETTLING.has(method)) return handler(message, session, work.signal);
    return work.run(async () => {
      if (!WITHOUT_RECORD.has(method)) await (await this.#get(session.id)).assertTakesData();
      return handler(message, session, work.signal);
    });
  }

  readonly #handlers: Readonly<Record<string, Handler>> = {
    open_image: async (message, session) => {
      const { imageId, useBaseline } = readBody(openImageSchema, message);
      const migration = await this.#get(session.id);
      await this.#standard.get(session.id)?.yield();
      const image = await migration.image(imageId, useBaseline);
      await image.beginPass();
      const root = await this.#context.pool.run({
        kind: 'root',
        hashes: image.held.memory,
        sizeBytes: image.held.sizeBytes,
      });
      const zero = image.state === 'empty';
      return {
        body: {
          image: migration.record.images.findIndex((spec) => spec.imageId === imageId),
          state: image.state,
          root,
          zero,
          bases: await migration.hasBases(),
        },
      };
    },

    manifest: async (message, session) => {
      const { image, first, count } = readBody(manifestRequestSchema, message);
      const { held } = await this.#image(session, image);
      if (first + count > held.blocks)
        throw new DwcpError('PROTOCOL_VIOLATION', 'The manifest has no such blocks', { side: 'destination' });
      const hashes = held.hashes.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES);
      const packed = Buffer.allocUnsafe(compressBound(hashes.length));
      const bytes = this.#packer.pack(hashes, packed, 1);
      // A copy: the hashes go on changing while the answer waits for the socket.
      return bytes >= 0
        ? { body: { packed: true }, payload: packed.subarray(0, bytes) }
        : { body: { packed: false }, payload: Buffer.from(hashes) };
    },

    page_hashes: async (message, session) => {
      const { image } = readBody(pageHashesSchema, message);
      const working = await this.#image(session, image);
      const count = message.payload.length / 4;
      if (!Number.isInteger(count) || count > MAX_PAGE_HASH_BLOCKS)
        throw new DwcpError('PROTOCOL_VIOLATION', `${count} blocks are too many to ask for`, { side: 'destination' });
      const list = Array.from({ length: count }, (_, index) => message.payload.readUInt32BE(index * 4));
      if (list.some((block) => block >= working.held.blocks))
        throw new DwcpError('PROTOCOL_VIOLATION', 'The image has no such blocks', { side: 'destination' });
      const hashes = await working.pageHashes(list);
      return { body: {}, payload: Buffer.from(hashes.buffer, hashes.byteOffset, hashes.length) };
    },

    references: async (message, session) => {
      const accepted = await (await this.#get(session.id)).referTo(readBody(referencesSchema, message));
      return { body: { accepted } };
    },

    bases: async (message, session) => {
      const sample = message.payload.subarray(0, MAX_SAMPLE_BYTES);
      const offered = await (await this.#get(session.id)).offerBases(Buffer.from(sample));
      return {
        body: {
          bases: offered.map(({ base: { name, root, sizeBytes }, source: { from } }) => ({
            name,
            root,
            sizeBytes,
            from,
          })),
        },
      };
    },

    base_pages: async (message, session) => {
      const { name, first, count } = readBody(basePagesSchema, message);
      const pages = await (await this.#get(session.id)).basePages(name);
      if (!pages || (first + count) * PAGE_HASH_BYTES > pages.length)
        throw new DwcpError('PROTOCOL_VIOLATION', `No such pages of a base ${name} were offered`, {
          side: 'destination',
        });
      return { body: {}, payload: pages.subarray(first * PAGE_HASH_BYTES, (first + count) * PAGE_HASH_BYTES) };
    },

    dictionary: async (message, session) => {
      const { hash } = readBody(dictionarySchema, message);
      const migration = await this.#get(session.id);
      const { dictionaries } = this.#context;
      const dictionary =
        message.payload.length > 0
          ? await dictionaries.receive(hash, Buffer.from(message.payload))
          : await dictionaries.received(hash);
      if (dictionary) await migration.activate(shareDictionary(dictionary));
      return { body: { active: dictionary !== undefined } };
    },

    finish_image: async (message, session) => {
      const { image, root } = readBody(finishImageSchema, message);
      await (await this.#image(session, image)).finish(root);
      return { body: {} };
    },

    take_over: async (message, session) => {
      const { vmId, roots } = readBody(takeOverSchema, message);
      return { body: await this.takeOver(session.id, vmId, roots) };
    },

    guest_begin: async (message, session) => {
      const { sectionId } = readBody(guestBeginSchema, message);
      await (await this.#get(session.id)).beginGuest(Buffer.from(message.payload), sectionId);
      return { body: {} };
    },

    guest_left: async (_message, session) => ({ body: { bytes: (await this.#get(session.id)).guestLeftBytes } }),

    guest_load: async (message, session, signal) => {
      const { commandBytes, totalBytes } = readBody(guestLoadSchema, message);
      const state = Buffer.allocUnsafe(totalBytes);
      if (commandBytes > totalBytes || this.#packer.unpack(message.payload, state) !== totalBytes)
        throw new DwcpError('PROTOCOL_VIOLATION', 'A device state does not unpack to its length', {
          side: 'destination',
        });
      await (await this.#get(session.id)).loadGuest(
        state.subarray(0, commandBytes),
        state.subarray(commandBytes),
        signal,
      );
      return { body: {} };
    },

    keep: async (_message, session) => {
      await (await this.#get(session.id)).keepAsBaselines();
      return { body: {} };
    },

    prepare: async (message, session) => {
      const record = readBody(destinationRecordSchema, {
        body: message.body.record as Message['body'],
        payload: message.payload,
      });
      if (record.mode !== 'direct' || record.migrationId !== session.id)
        throw new DwcpError('PROTOCOL_VIOLATION', 'Only a direct session prepares itself', { side: 'destination' });
      const known = await this.#context.registry.find(record.vmId);
      if (known?.presence === 'here')
        throw new DwcpError('VM_EXISTS', `VM ${record.vmId} lives on this host: its images are not overwritten`, {
          side: 'destination',
        });
      await assertImagesFree(this, record, this.#options.hostId);
      const images = record.images.map((image) => ({
        ...image,
        path: this.#context.registry.imagePath(undefined, record.vmId, image.imageId),
      }));
      await this.prepare({ ...record, images });
      return { body: {} };
    },

    install_image: async (message, session) => {
      await (await this.#get(session.id)).installDirect(readBody(installImageSchema, message).imageId);
      return { body: {} };
    },

    train: (_message, session) => Promise.resolve({ body: { ...(session.takeTrain() ?? { bytes: 0, spanMs: 0 }) } }),

    abandon: async (message, session) => {
      const { vmId, fence } = readBody(abandonSchema, message);
      await this.abandon(session.id, vmId, fence);
      return { body: {} };
    },
  };

  async #image(session: ReceivingSession, number: number): Promise<WorkingImage> {
    const image = await (await this.#get(session.id)).imageByNumber(number);
    if (!image) throw new DwcpError('PROTOCOL_VIOLATION', `Image ${number} is not open`, { side: 'destination' });
    return image;
  }
}

/** How a guest began to run here, as the journal's last line remembers it. */
function startedOf(note: string | undefined): Partial<TakenOver> {
  const parsed = takenOverSchema.partial().safeParse(note === undefined ? {} : JSON.parse(note));
  return parsed.success ? { resumedAtMs: parsed.data.resumedAtMs, responds: parsed.data.responds } : {};
}
