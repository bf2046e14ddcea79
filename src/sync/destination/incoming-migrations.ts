/**
 * The migrations that this host is the destination of: one object for each, whoever asks, also for those from before a
 * restart. A migration's own steps are destination-migration.ts; who is connected, the hub knows.
 */
import { DwcpError, hasCode, toDwcpError } from '../../model/errors';
import { idsIn } from '../../store/id-path';
import { DestinationMigration } from './destination-migration';
import { type DestinationContext, type DestinationRecord, migrationFolder, removeRecord } from './destination-record';

export class IncomingMigrations {
  readonly #context: DestinationContext;
  readonly #migrations = new Map<string, Promise<DestinationMigration | undefined>>();
  /** Those of them that have been read or made. */
  readonly #known = new Map<string, DestinationMigration>();

  constructor(context: DestinationContext) {
    this.#context = context;
  }

  /**
   * Makes a migration known; asking again for the same one changes nothing. One object for each, whoever asks. A newer claim of its
   * source takes the older one's record, which has given way (DestinationMigration.giveWay).
   */
  async prepare(record: DestinationRecord): Promise<DestinationMigration> {
    const { migrationId, fence } = record;
    const known = await this.find(migrationId);
    if (known && known.record.fence >= fence) return known;
    const migration = new DestinationMigration(record, this.#context);
    // There is a record at every moment: a promise without one would never be swept up.
    if (known)
      await this.#keep(
        migrationId,
        migration.save().then(() => migration),
      );
    else if (this.#migrations.has(migrationId)) return this.prepare(record);
    else await this.#keep(migrationId, this.#save(migration));
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
  find(migrationId: string): Promise<DestinationMigration | undefined> {
    return (
      this.#migrations.get(migrationId) ??
      this.#keep(migrationId, DestinationMigration.load(migrationId, this.#context))
    );
  }

  /** As find(), of what is in memory: for who cannot wait. */
  known(migrationId: string): DestinationMigration | undefined {
    return this.#known.get(migrationId);
  }

  #keep<T extends DestinationMigration | undefined>(migrationId: string, coming: Promise<T>): Promise<T> {
    this.#migrations.set(migrationId, coming);
    const forget = (): void => {
      if (this.#migrations.get(migrationId) === coming) this.#migrations.delete(migrationId);
    };
    coming.then((migration) => {
      if (!migration) forget();
      else if (this.#migrations.get(migrationId) === coming) this.#known.set(migrationId, migration);
    }, forget);
    return coming;
  }

  /** Its record is gone: what still holds the object finds everything said in the journal. */
  async done(migrationId: string, migration: DestinationMigration): Promise<void> {
    if ((await this.#migrations.get(migrationId)) !== migration) return;
    this.#migrations.delete(migrationId);
    this.#known.delete(migrationId);
  }

  /**
   * When the agent starts, before it hears of Temporal: completes what a crash has left undone behind a line of the journal.
   * @returns what could not be completed yet; the sweep tries it again
   */
  async recover(): Promise<readonly { readonly migrationId: string; readonly error: DwcpError }[]> {
    const failed: { migrationId: string; error: DwcpError }[] = [];
    for (const migrationId of await this.list()) {
      try {
        if (await this.find(migrationId)) await this.complete(migrationId);
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
    const migration = await this.find(migrationId);
    try {
      if (!migration || !(await migration.recover())) return false;
    } catch (error) {
      // It could not be started here and has been given back: that is over too.
      if (migration && hasCode(error, 'ABANDONED')) await this.done(migrationId, migration);
      throw error;
    }
    await this.done(migrationId, migration);
    return true;
  }

  /** Another migration with a record here for the same VM, whose files would be in the way. */
  async otherOf(vmId: string, migrationId: string): Promise<string | undefined> {
    return (await this.recordsOf(vmId)).find((record) => record.migrationId !== migrationId)?.migrationId;
  }

  /** What this host has on record for a VM. */
  async recordsOf(vmId: string): Promise<DestinationRecord[]> {
    const migrations = await Promise.all((await this.list()).map((id) => this.find(id)));
    return migrations.flatMap((migration) => (migration?.record.vmId === vmId ? [migration.record] : []));
  }

  /** Ids of all migrations with a record on this host. */
  list(): Promise<string[]> {
    return idsIn(migrationFolder(this.#context.dataDir));
  }

  /** @throws MIGRATION_UNKNOWN */
  async get(migrationId: string): Promise<DestinationMigration> {
    const migration = await this.find(migrationId);
    if (!migration)
      throw new DwcpError('MIGRATION_UNKNOWN', `This host takes no part in migration ${migrationId}`, {
        side: 'destination',
      });
    return migration;
  }

  /** Closes files; nothing is decided. */
  async close(): Promise<void> {
    for (const loading of this.#migrations.values()) await (await loading)?.close();
  }
}
