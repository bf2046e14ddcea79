/**
 * Cleans up what closed migrations have left on this host. A terminated workflow runs no clean-up of its own, so each
 * agent looks for itself: is the workflow that owned this still open? What is then done stands in the tables of
 * src/model/ownership-machine.ts (`whenClosed`), and is a step like any other: it ends what is under way, and takes the locks.
 */
import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/client';
import { readAttribute } from '../control/search-attributes';
import { DwcpError, hasCode, toDwcpError } from '../model/errors';
import { migrationWorkflowId } from '../model/names';
import {
  DESTINATION_TABLE,
  destinationState,
  isOpenState,
  SOURCE_TABLE,
  sourceState,
} from '../model/ownership-machine';
import { endOldDirect } from '../sync/destination/direct-sessions';
import type { SourceOwnership } from '../sync/hand-over/source-ownership';
import { UNLIMITED } from '../sync/source/source-context';
import type { SourceHub } from '../sync/source-hub';
import type { Logger } from '../telemetry/logger';
import type { HostParts } from './host';

const NEVER = new AbortController().signal;

export interface SweeperParts {
  readonly host: HostParts;
  readonly sources: SourceHub;
  readonly ownership: SourceOwnership;
  readonly client: Client;
  readonly log: Logger;
}

export class Sweeper {
  readonly #parts: SweeperParts;
  #running: Promise<void> | undefined;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
  }

  /** One sweep; asked for again while one runs, it is that one. */
  sweep(): Promise<void> {
    this.#running ??= this.#sweep().finally(() => (this.#running = undefined));
    return this.#running;
  }

  /**
   * What closed migrations have left of one VM, for whoever has found it in their hands. A sweep that runs is not waited for:
   * it may have looked when the migration was still open, and may have other hosts to wait for.
   */
  async settle(vmId: string): Promise<void> {
    for (const { migrationId } of await this.#parts.host.hub.incoming.recordsOf(vmId))
      await this.#try(migrationId, () => this.#sweepIncoming(migrationId));
    await this.#try(vmId, () => this.#sweepSource(vmId));
  }

  async #sweep(): Promise<void> {
    const { host, sources } = this.#parts;
    for (const migrationId of await host.hub.incoming.list())
      await this.#try(migrationId, () => this.#sweepIncoming(migrationId));
    const open = new Set<string | undefined>();
    for (const { vmId } of await host.registry.list())
      await this.#try(vmId, async () => open.add(await this.#sweepSource(vmId)));
    // What an attempt has left in memory of a migration that has nothing here any more.
    for (const id of sources.liveIds)
      if (!open.has(id)) await this.#try(id, () => sources.ownershipStep(id, NEVER, () => sources.close(id)));
  }

  /** @returns the migration in whose hands the VM was found */
  async #sweepSource(vmId: string): Promise<string | undefined> {
    const last = await this.#parts.host.ownership.last(vmId);
    if (!last || !isOpenState(last.state)) return undefined;
    if (SOURCE_TABLE[sourceState(last.state)].whenClosed !== 'nothing')
      await this.#try(last.migrationId, () => this.#sweepOutgoing(vmId, last.migrationId));
    return last.migrationId;
  }

  async #try(migrationId: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const reason = toDwcpError(error, 'INTERNAL');
      this.#parts.log.warn(
        { migrationId, ...reason.report() },
        'what a closed migration left could not be cleaned up yet',
      );
    }
  }

  async #sweepIncoming(migrationId: string): Promise<void> {
    const { host, log } = this.#parts;
    const migration = await host.hub.incoming.find(migrationId);
    if (!migration) return;
    if (migration.record.mode === 'direct') {
      if (await endOldDirect(host.hub, migration))
        log.info(
          { migrationId },
          'ended a direct session that nobody goes on with; what had arrived is kept as baseline',
        );
      return;
    }
    if (!migration.record.workflowId) return;
    const { vmId, fence, mode, workflowId } = migration.record;
    const isOver = async (): Promise<boolean> =>
      mode === 'migrate' &&
      DESTINATION_TABLE[destinationState((await host.ownership.last(vmId, migrationId))?.state)].atStart !== 'nothing';
    // Behind such a line nothing is left to decide, whoever leads the migration.
    if (await isOver()) {
      await host.hub.incoming.complete(migrationId);
      log.info({ migrationId, vmId }, 'completed what a migration had left');
      return;
    }
    if (await this.#isOpen(workflowId, migrationId)) return;
    host.hub.endSession(migrationId, new DwcpError('CANCELLED', `Migration ${migrationId} is closed`));
    if (mode === 'migrate')
      await host.hub.abandon(migrationId, vmId, fence).catch((error: unknown) => this.#unlessTaken(error, migrationId));
    else await host.hub.dismiss(migrationId);
    log.info({ migrationId, vmId, mode }, 'cleaned up after a closed migration; what had arrived is kept as baseline');
  }

  /** Taken over since it was looked at: then that is completed. */
  async #unlessTaken(error: unknown, migrationId: string): Promise<void> {
    if (!hasCode(error, 'ALREADY_PAST_RETURN')) throw error;
    await this.#parts.host.hub.incoming.complete(migrationId);
  }

  async #sweepOutgoing(vmId: string, migrationId: string): Promise<void> {
    const { host, sources, ownership, log } = this.#parts;
    if (
      await this.#isOpen((await host.ownership.workflowOf(vmId, migrationId)) ?? migrationWorkflowId(vmId), migrationId)
    )
      return;
    await sources.ownershipStep(migrationId, NEVER, async () => {
      // Whatever was under way has ended now, and may have changed what there is to do.
      const state = sourceState((await host.ownership.last(vmId, migrationId))?.state);
      await sources.close(migrationId);
      const { whenClosed } = SOURCE_TABLE[state];
      if (whenClosed === 'roll_back') await ownership.rollBack(vmId, migrationId, { note: 'its workflow is closed' });
      if (whenClosed === 'taken_over') await ownership.completeRelease(vmId, migrationId);
      if (whenClosed === 'ask the destination') await this.#settleHandOver(vmId, migrationId);
      log.info({ migrationId, vmId, state }, 'settled what a closed migration had left');
    });
  }

  /** The workflow ended in the middle of a hand-over: the destination's journal decides. */
  async #settleHandOver(vmId: string, migrationId: string): Promise<void> {
    const { host, sources, ownership } = this.#parts;
    const [last, handOver] = await Promise.all([
      host.ownership.last(vmId, migrationId),
      host.ownership.handOver(vmId, migrationId),
    ]);
    if (!last || !handOver)
      throw new DwcpError('HANDOVER_IN_DOUBT', `Nothing is known of where ${vmId} was handed to`, { side: 'source' });
    const migration = sources.open(migrationId, handOver.destination, UNLIMITED);
    try {
      await (await migration.session('settle')).control.request('abandon', { vmId, fence: last.fence });
      await ownership.rollBack(vmId, migrationId, {
        destinationAbandoned: true,
        note: 'its workflow is closed and the destination promised not to start it',
      });
    } catch (error) {
      if (!hasCode(error, 'ALREADY_PAST_RETURN')) throw error;
      const { generation } = await migration.takeOver(vmId, handOver.roots);
      await ownership.release(vmId, migrationId, handOver.destinationHost, generation, migration.sentManifests);
    } finally {
      await sources.close(migrationId);
    }
  }

  /** Whether the workflow of a migration is still open, and still this migration's. */
  async #isOpen(workflowId: string, migrationId: string): Promise<boolean> {
    try {
      const { status, typedSearchAttributes } = await this.#parts.client.workflow.getHandle(workflowId).describe();
      if (status.name !== 'RUNNING') return false;
      const owner = readAttribute(typedSearchAttributes, 'MigrationId');
      return owner === undefined || owner === migrationId;
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return false;
      throw error;
    }
  }
}
