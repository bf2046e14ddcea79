/**
 * Cleans up what closed migrations have left on this host. A terminated workflow runs no clean-up of its own, so each
 * agent looks for itself: is the workflow that owned this still open? The rules are those of the hand-over; a sweep
 * never decides what the flow would not.
 *
 *   source, claimed       -> rolled back            destination, promised  -> abandoned, images kept as baseline
 *   source, handed over   -> the destination says   destination, mine      -> installation completed
 *                            installed: released; or promises not to start: rolled back; no answer: left as it is
 */
import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/client';
import { readAttribute } from '../control/search-attributes';
import { DwcpError, hasCode, toDwcpError } from '../model/errors';
import { migrationWorkflowId } from '../model/names';
import { isOpenState, type OwnershipEntry } from '../store/ownership-journal';
import { readOutgoing } from '../sync/outgoing';
import type { SourceHub } from '../sync/source-hub';
import { UNLIMITED } from '../sync/source-migration';
import type { SourceOwnership } from '../sync/source-ownership';
import type { Logger } from '../telemetry/logger';
import type { HostParts } from './host';

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

  async #sweep(): Promise<void> {
    for (const migrationId of await this.#parts.host.hub.list()) await this.#try(migrationId, () => this.#sweepIncoming(migrationId));
    for (const vm of await this.#parts.host.registry.list()) {
      const last = await this.#parts.host.ownership.last(vm.vmId);
      if (last && isOpenState(last.state)) await this.#try(last.migrationId, () => this.#sweepOutgoing(vm.vmId, last));
    }
  }

  async #try(migrationId: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const reason = toDwcpError(error, 'INTERNAL');
      this.#parts.log.warn({ migrationId, ...reason.report() }, 'what a closed migration left could not be cleaned up yet');
    }
  }

  async #sweepIncoming(migrationId: string): Promise<void> {
    const { host, log } = this.#parts;
    const migration = await host.hub.migration(migrationId);
    if (!migration || migration.record.mode === 'direct' || !migration.record.workflowId) return;
    if (await this.#isOpen(migration.record.workflowId, migrationId)) return;
    const { vmId, fence, mode } = migration.record;
    host.hub.endSession(migrationId, new DwcpError('CANCELLED', `Migration ${migrationId} is closed`));
    const last = await host.ownership.last(vmId, migrationId);
    if (last?.state === 'mine') await migration.completeTakeOver();
    else if (mode === 'migrate') await host.hub.abandon(migrationId, vmId, fence);
    else await host.hub.dismiss(migrationId);
    log.info({ migrationId, vmId, mode }, 'cleaned up after a closed migration; what had arrived is kept as baseline');
  }

  async #sweepOutgoing(vmId: string, last: OwnershipEntry): Promise<void> {
    const { sources, ownership, log } = this.#parts;
    const { migrationId } = last;
    if (last.state !== 'claimed' && last.state !== 'handed_over') return;
    if (await this.#isOpen(migrationWorkflowId(vmId), migrationId)) return;
    if (last.state === 'claimed') {
      await sources.close(migrationId);
      await ownership.rollBack(vmId, migrationId, false, 'its workflow is closed');
    } else await this.#settleHandOver(vmId, last);
    log.info({ migrationId, vmId, state: last.state }, 'settled what a closed migration had left');
  }

  /** The workflow ended in the middle of a hand-over: the destination's journal decides. */
  async #settleHandOver(vmId: string, { migrationId, fence }: OwnershipEntry): Promise<void> {
    const { host, sources, ownership } = this.#parts;
    const outgoing = await readOutgoing(host.dataDir, migrationId);
    if (!outgoing) throw new DwcpError('HANDOVER_IN_DOUBT', `Nothing is known of where ${vmId} was handed to`, { side: 'source' });
    const migration = sources.open(migrationId, outgoing.destination, UNLIMITED);
    try {
      await (await migration.session('settle')).control.request('abandon', { vmId, fence });
      await ownership.rollBack(vmId, migrationId, true, 'its workflow is closed and the destination promised not to start it');
    } catch (error) {
      if (!hasCode(error, 'ALREADY_PAST_RETURN')) throw error;
      const { generation } = await migration.takeOver(vmId, outgoing.roots);
      await ownership.release(vmId, migrationId, outgoing.destinationHost, generation, migration.sentManifests);
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
