/**
 * The receiving half of an agent: lets connections in, keeps one session per migration, answers the source's requests.
 * The migration's own state is destination-migration.ts; the standard transfer's is standard-receiver.ts.
 */
import { DwcpError, hasCode, toDwcpError } from '../model/errors';
import { forgetOldest } from '../model/forget-oldest';
import { DESTINATION_TABLE, destinationState, isRefused } from '../model/ownership-machine';
import type { OwnedVm } from '../store/ownership-journal';
import { connectTo } from '../system/unix-socket';
import type { Connection } from '../transport/connection';
import type { Answer, Message } from '../transport/control-channel';
import type { Admitted } from '../transport/endpoint';
import type { Frame } from '../transport/frame';
import { checkGrant } from '../transport/grants';
import { type Hello, RELEASE, SESSION_PROTOCOL } from '../transport/hello';
import { ReceivingSession } from '../transport/receiving-session';
import type { Slab } from '../transport/slab';
import { Tunnel } from '../transport/tunnel';
import type { DestinationMigration } from './destination/destination-migration';
import type { DestinationContext, DestinationRecord } from './destination/destination-record';
import {
  destinationRequests,
  type Handler,
  type Requested,
  SETTLING,
  WITHOUT_RECORD,
} from './destination/destination-requests';
import { IncomingMigrations } from './destination/incoming-migrations';
import { AskedWithoutRecord, assertOwnVm, assertPermitted, assertSource } from './destination/permitted';
import { SessionWork } from './destination/session-work';
import { StandardReceiver } from './destination/standard-receiver';
import { destinationStep } from './hand-over/own-step';
import { type TakenOver, takenOverSchema } from './protocol';

export interface HubOptions {
  readonly hostId: string;
  readonly key: Buffer;
  readonly acceptDwcp: boolean;
  readonly slab: Slab;
  /** Where a connection goes that a session has given back. */
  readonly giveBack: (connection: Connection) => void;
}

/** Sessions whose newest attempt is remembered after they have ended. */
const MAX_EPOCHS_KNOWN = 4096;

export class DestinationHub implements Requested {
  readonly #options: HubOptions;
  readonly #context: DestinationContext;
  readonly #sessions = new Map<string, ReceivingSession>();
  /** What each session's newest attempt has under way; a newer one begins when that has ended. */
  readonly #works = new Map<string, SessionWork>();
  readonly #newestEpochs = new Map<string, number>();
  readonly #standard = new Map<string, StandardReceiver>();
  readonly #asked = new AskedWithoutRecord();
  readonly #handlers: ReadonlyMap<string, Handler>;
  /** The migrations that this host is the destination of. */
  readonly incoming: IncomingMigrations;

  constructor(options: HubOptions, context: DestinationContext) {
    this.#options = options;
    this.#context = context;
    this.incoming = new IncomingMigrations(context);
    // A map: what a peer names may be the name of what every object has.
    this.#handlers = new Map(Object.entries(destinationRequests(this, context)));
  }

  get hostId(): string {
    return this.#options.hostId;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  get streamCount(): number {
    return [...this.#sessions.values()].reduce((sum, session) => sum + session.streamCount, 0);
  }

  /** Whether a source holds a session of this id. */
  holds(sessionId: string): boolean {
    return this.#sessions.has(sessionId);
  }

  /**
   * Takes a VM over, or says that it has been. Past this the source may never resume.
   * @returns the generation of its images and, of a running guest, how it began to run here
   * @throws ABANDONED, FENCED, INTEGRITY_MISMATCH where it has not been
   */
  async takeOver(migrationId: string, vmId: string, roots: Readonly<Record<string, string>>): Promise<TakenOver> {
    const migration = await this.incoming.find(migrationId);
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
    assertOwnVm(migration.record, vmId);
    try {
      await migration.takeOver(roots, () => this.#dataEnded(migrationId));
    } catch (error) {
      if (hasCode(error, 'ABANDONED')) await this.incoming.done(migrationId, migration);
      throw error;
    }
    await this.incoming.done(migrationId, migration);
    return { generation: migration.record.generation, ...migration.started };
  }

  /**
   * Promises durably not to start the VM for a migration, also one this host has never heard of or has forgotten; what
   * has arrived stays as baseline.
   * @throws ALREADY_PAST_RETURN; PROTOCOL_VIOLATION where the migration is of another VM, or of a newer claim
   */
  async abandon(migrationId: string, vmId: string, fence: number): Promise<void> {
    const migration = await this.incoming.find(migrationId);
    if (migration) assertOwnVm(migration.record, vmId, fence);
    else this.#asked.assertOneVm(migrationId, vmId);
    if (migration) {
      await migration.abandon(() => this.#dataEnded(migrationId));
      await this.incoming.done(migrationId, migration);
      return;
    }
    await this.#context.ownership.exclusively(vmId, async (vm) => {
      const own = await destinationStep(vm, migrationId);
      own.assert('abandon');
      // What is asked without a record raises no fence: others would be locked out by it.
      const known = own.entry?.fence ?? Math.min(fence, await vm.fence());
      if (own.state === 'none' || own.state === 'promised') await own.happened('abandon', known);
    });
  }

  /**
   * Runs `promise` inside the VM's lock. An older claim of the same migration gives way first: its source has rolled it back before it
   * handed anything over, or this host would have promised not to start it.
   */
  async promising<T>(
    { migrationId, vmId, fence }: Pick<DestinationRecord, 'migrationId' | 'vmId' | 'fence'>,
    promise: (vm: OwnedVm) => Promise<T>,
  ): Promise<T> {
    const older = await this.incoming.find(migrationId);
    if (!older || older.record.fence >= fence) return this.#context.ownership.exclusively(vmId, promise);
    assertOwnVm(older.record, vmId);
    this.endSession(migrationId, new DwcpError('SUPERSEDED', `The source has claimed ${vmId} again`));
    await this.#dataEnded(migrationId);
    return older.giveWay(promise);
  }

  /** The standard transfer of a migration, where one runs, gives its files up. */
  async yieldStandard(migrationId: string): Promise<void> {
    await this.#standard.get(migrationId)?.yield();
  }

  /** Ends a migration's connections. */
  endSession(migrationId: string, error: DwcpError): void {
    this.#sessions.get(migrationId)?.end(error);
    this.#standard.get(migrationId)?.end(error);
  }

  /** Ends a warm-up or a plan: what has arrived stays as baseline, nobody owned anything. */
  async dismiss(migrationId: string): Promise<void> {
    const migration = await this.incoming.find(migrationId);
    await migration?.abandon(() => this.#dataEnded(migrationId));
    if (migration) await this.incoming.done(migrationId, migration);
  }

  /** Judges a hello. @throws GRANT_INVALID, HELLO_REFUSED, SUPERSEDED */
  admit(hello: Hello, connection: Connection): Admitted {
    const { key, hostId, acceptDwcp } = this.#options;
    // What settles a hand-over is about a migration that was let in for it, however long ago.
    checkGrant(key, hello.grant, hello.role === 'settle');
    const proven = connection.peer?.hostId ?? hello.sourceHost;
    if (proven !== hello.sourceHost)
      throw new DwcpError('PEER_UNTRUSTED', `Host ${proven} speaks in the name of host ${hello.sourceHost}`, {
        side: 'source',
      });
    const ofSession = hello.grant.purpose === 'session' && hello.grant.subject === hello.sessionId;
    const ofPeer = hello.grant.purpose === 'peer' && hello.role === 'idle' && hello.grant.subject === hello.sourceHost;
    if (hello.grant.holder !== hello.sourceHost)
      throw new DwcpError(
        'GRANT_INVALID',
        `The token is host ${hello.grant.holder}’s, and host ${hello.sourceHost} shows it`,
      );
    if (!ofSession && !ofPeer) throw new DwcpError('GRANT_INVALID', 'The token is for another session');
    const record = hello.role === 'idle' ? undefined : this.incoming.known(hello.sessionId)?.record;
    if (record) assertSource(record, hello.sourceHost);
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
    await this.incoming.close();
  }

  /** What is being taken in of a migration has ended. */
  async #dataEnded(migrationId: string): Promise<void> {
    await this.#standard.get(migrationId)?.yield();
    await this.#works.get(migrationId)?.idle();
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
    forgetOldest(this.#newestEpochs, MAX_EPOCHS_KNOWN);
    this.#sessions
      .get(sessionId)
      ?.end(new DwcpError('SUPERSEDED', 'A newer attempt of the source took the session over'));
    const work = new SessionWork(this.#works.get(sessionId));
    this.#works.set(sessionId, work);
    const session: ReceivingSession = new ReceivingSession(
      { id: sessionId, epoch, connection },
      this.#options.slab,
      {
        request: (method, message) => this.#serve(session, work, hello, method, message),
        batch: (frame) => work.run(() => this.#takeBatch(hello, frame)),
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
    const receiver: StandardReceiver = new StandardReceiver({
      connection,
      slab: this.#options.slab,
      context: this.#context,
      migration: () => this.#migrationOf(hello),
      before: earlier?.yield() ?? Promise.resolve(),
      onEnd: () => {
        if (this.#standard.get(sessionId) === receiver) this.#standard.delete(sessionId);
      },
    });
    this.#standard.set(sessionId, receiver);
  }

  /** QEMU's own bytes, to the QEMU that waits for them. @param hello stream 1 brings memory, all others disks */
  #openTunnel(hello: Hello, connection: Connection): void {
    const tunnel = new Tunnel(connection, () => undefined);
    this.#migrationOf(hello)
      .then(({ wholePlaces }) =>
        tunnel.join(connectTo(hello.stream === 1 ? wholePlaces.memoryPath : wholePlaces.disksPath)),
      )
      .catch((error: unknown) => tunnel.destroy(toDwcpError(error, 'INTERNAL')));
  }

  /** The migration that a session belongs to. @throws MIGRATION_UNKNOWN; PROTOCOL_VIOLATION where it is another source's */
  async #migrationOf({ sessionId, sourceHost }: Hello): Promise<DestinationMigration> {
    const migration = await this.incoming.get(sessionId);
    assertSource(migration.record, sourceHost);
    return migration;
  }

  async #takeBatch(hello: Hello, frame: Frame): Promise<readonly number[]> {
    const migration = await this.#migrationOf(hello);
    const image = await migration.images.byNumber(frame.meta.length >= 2 ? frame.meta.readUInt16BE(0) : 0);
    if (!migration.takesData) await migration.assertTakesData();
    if (!image)
      throw new DwcpError('PROTOCOL_VIOLATION', 'A batch names an image that is not open', { side: 'destination' });
    return image.take(frame);
  }

  async #serve(
    session: ReceivingSession,
    work: SessionWork,
    hello: Hello,
    method: string,
    message: Message,
  ): Promise<Answer> {
    const handler = this.#handlers.get(method);
    if (!handler || (hello.role === 'settle' && !SETTLING.has(method)))
      throw new DwcpError('PROTOCOL_VIOLATION', `Unknown request ${method.slice(0, 60)}`, { side: 'destination' });
    // Who owns the VM is asked inside its lock, by whichever attempt.
    if (SETTLING.has(method)) {
      const migration = await this.incoming.find(session.id);
      if (migration) assertSource(migration.record, hello.sourceHost);
      return handler(message, session, work.signal, hello.sourceHost);
    }
    return work.run(async () => {
      if (!WITHOUT_RECORD.has(method)) {
        const migration = await this.#migrationOf(hello);
        assertPermitted(method, migration.record);
        await migration.assertTakesData();
      }
      return handler(message, session, work.signal, hello.sourceHost);
    });
  }
}

/** How a guest began to run here, as the journal's last line remembers it. */
function startedOf(note: string | undefined): Partial<TakenOver> {
  const parsed = takenOverSchema.partial().safeParse(note === undefined ? {} : JSON.parse(note));
  return parsed.success ? { resumedAtMs: parsed.data.resumedAtMs, responds: parsed.data.responds } : {};
}
