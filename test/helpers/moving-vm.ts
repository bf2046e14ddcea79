/**
 * A VM on a lab's host a that is moved to b, and what operators do about that: migrate, cancel, reset, terminate. It says when
 * all is settled, and which host calls the VM its own. A running guest is scene.ts's, a VM that stands still stopped-vm.ts's.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { WorkflowExecutionDescription, WorkflowHandle } from '@temporalio/client';
import { temporal } from '@temporalio/proto';
import type { MigrateOptions } from '../../src/control/orchestrator';
import { hasCode } from '../../src/model/errors';
import { type MigrationProgress, migrationProgressSchema } from '../../src/model/migration';
import { MESSAGES, migrationWorkflowId } from '../../src/model/names';
import { isOpenState } from '../../src/model/ownership-machine';
import { OwnershipJournal } from '../../src/store/ownership-journal';
import { VmRegistry } from '../../src/store/vm-registry';
import type { HostDisk } from './host-disks';
import { Lab, type LabHost } from './lab';
import { Relay } from './proxy';
import { after, until } from './waiting';

export type Side = 'source' | 'destination';
/** Disks of a host's own; else both lie in the lab's folder. */
export type HostDisks = Readonly<Partial<Record<Side, HostDisk | undefined>>>;

export interface Place {
  readonly lab: Lab;
  readonly relay: Relay;
  readonly disks: HostDisks;
}

const SETTLED_MS = 90_000;
const POLL_MS = 100;
const LAST_LINES = 25;

/**
 * Agent b is reached at 127.0.0.2 through a relay to where it listens.
 * @param keep it outlives its test, for the next; endPlace() ends it
 */
export async function startPlace(disks: HostDisks = {}, keep = false): Promise<Place> {
  const lab = await Lab.start({
    own: true,
    keep,
    bArgs: ['--advertise-address', '127.0.0.2'],
    aDataDir: disks.source?.folder,
    bDataDir: disks.destination?.folder,
    vmsFolder: disks.source && `${disks.source.folder}/vms`,
  });
  const relay = new Relay({ host: '127.0.0.2', port: lab.b.port }, { host: '127.0.0.1', port: lab.b.port }, keep);
  await relay.listen();
  return { lab, relay, disks };
}

export async function endPlace({ lab, relay }: Place): Promise<void> {
  await relay.close();
  await lab.stop();
}

/** The states that a host's journal holds of a migration, read from outside at any moment. */
export function journalStates({ dataDir }: LabHost, vmId: string, migrationId: string): string[] {
  try {
    const lines = readFileSync(join(dataDir, 'ownership', `${vmId}.journal`), 'utf8').split('\n');
    return lines.flatMap((line) =>
      line.includes(`"migrationId":"${migrationId}"`) ? [/"state":"(\w+)"/.exec(line)?.[1] ?? ''] : [],
    );
  } catch {
    return [];
  }
}

export abstract class MovingVm {
  readonly lab: Lab;
  readonly relay: Relay;
  readonly disks: HostDisks;
  readonly vmId: string;
  readonly log: string[] = [];
  #migrations = 0;
  #ended = false;

  protected constructor({ lab, relay, disks }: Place, vmId: string) {
    this.lab = lab;
    this.relay = relay;
    this.disks = disks;
    this.vmId = vmId;
  }

  /** @throws where what must never be has been seen already */
  protected abstract assertSafe(): void;

  note(text: string): void {
    this.log.push(`${new Date().toISOString()} ${this.vmId} ${text}`);
  }

  hostOf(side: Side): LabHost {
    return side === 'source' ? this.lab.a : this.lab.b;
  }

  /** The first migration: the one that states are of. */
  get migrationId(): string {
    return `m-${this.vmId}-1`;
  }

  statesOf(side: Side): string[] {
    return journalStates(this.hostOf(side), this.vmId, this.migrationId);
  }

  /** @throws MIGRATION_IN_PROGRESS */
  async migrate(options: MigrateOptions = {}): Promise<string> {
    const migrationId = await this.lab.migrate(this.vmId, {
      migrationId: `m-${this.vmId}-${this.#migrations + 1}`,
      ...options,
    });
    this.#migrations += 1;
    this.note(`migrate ${migrationId}`);
    return migrationId;
  }

  /** Starts a migration as soon as the one before has let go of the VM. */
  async migrateAtOnce(options: MigrateOptions = {}): Promise<string> {
    for (const deadline = Date.now() + SETTLED_MS; ; await after(20)) {
      try {
        return await this.migrate(options);
      } catch (error) {
        if (!hasCode(error, 'MIGRATION_IN_PROGRESS') || Date.now() > deadline) throw error;
      }
    }
  }

  /** The newest run of the VM's workflow, by whatever migration. */
  async run(): Promise<{ readonly handle: WorkflowHandle; readonly description: WorkflowExecutionDescription }> {
    const workflowId = migrationWorkflowId(this.vmId);
    const description = await this.lab.client.workflow.getHandle(workflowId).describe();
    return { description, handle: this.lab.client.workflow.getHandle(workflowId, description.runId) };
  }

  async progress(): Promise<MigrationProgress | undefined> {
    const { handle } = await this.run();
    return handle.query<unknown>(MESSAGES.progressQuery).then(
      (value) => migrationProgressSchema.parse(value),
      () => undefined,
    );
  }

  /** As an operator resets a workflow: to its first workflow task. */
  async resetWorkflow(): Promise<void> {
    const {
      handle,
      description: { runId, workflowId },
    } = await this.run();
    const { events } = await handle.fetchHistory();
    const first = events?.find(
      ({ eventType }) => eventType === temporal.api.enums.v1.EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    );
    const { workflowService, options } = this.lab.client;
    this.note('reset of the workflow');
    await workflowService.resetWorkflowExecution({
      namespace: options.namespace,
      workflowExecution: { workflowId, runId },
      reason: 'a test',
      requestId: randomUUID(),
      workflowTaskFinishEventId: first?.eventId ?? null,
    });
  }

  /** One that has ended already is left alone; so in terminateWorkflow(). */
  async cancel(): Promise<void> {
    const { handle } = await this.run();
    this.note('cancel');
    await handle.signal(MESSAGES.cancelSignal).catch(() => undefined);
  }

  async terminateWorkflow(): Promise<void> {
    const { handle } = await this.run();
    this.note('the workflow is terminated');
    await handle.terminate('a test').catch(() => undefined);
  }

  /**
   * Waits until no workflow of the VM is open and neither host has it in its hands; what parks is tried again.
   * @param cancelAfterMs what still runs by then is cancelled
   * @throws at once where it is not safe any more
   */
  async settled(cancelAfterMs = Infinity): Promise<void> {
    const startedAt = Date.now();
    let last = '';
    let parkedBefore: string | undefined;
    for (let cancelled = false; Date.now() - startedAt < SETTLED_MS; await after(POLL_MS)) {
      this.assertSafe();
      try {
        const {
          description: { status },
          handle,
        } = await this.run();
        const states = await Promise.all(
          [this.lab.a, this.lab.b].map(
            async ({ dataDir }) => (await new OwnershipJournal(dataDir).last(this.vmId))?.state,
          ),
        );
        const progress = status.name === 'RUNNING' ? await this.progress() : undefined;
        const parked = progress?.parked?.error;
        last = JSON.stringify({ workflow: status.name, states, phase: progress?.phase, parked: parked?.code });
        if (status.name !== 'RUNNING' && !states.some((state) => state !== undefined && isOpenState(state))) return;
        if (parked && parked.code !== parkedBefore) this.note(`parked: ${parked.code}: ${parked.message}`);
        parkedBefore = parked?.code;
        if (parked) await handle.executeUpdate(MESSAGES.retryStep, { args: [{}] });
        if (status.name === 'RUNNING' && !cancelled && Date.now() - startedAt > cancelAfterMs) {
          cancelled = true;
          await this.cancel();
        }
      } catch (error) {
        last = String(error); // The server is away for a moment.
      }
    }
    throw new Error(`the migration did not come to its end: ${last}`);
  }

  /** The one side that calls the VM its own. */
  async home(): Promise<Side> {
    const records = await Promise.all(
      [this.lab.a, this.lab.b].map(({ dataDir }) => new VmRegistry(dataDir).find(this.vmId)),
    );
    const sides = (['source', 'destination'] as const).filter((_, index) => records[index]?.presence === 'here');
    expect(sides).toHaveLength(1);
    return sides[0]!;
  }

  /** What was seen from outside, and the last words of every process. */
  report(): string {
    const said = this.lab
      .logs()
      .map(
        ({ name, text }) => `--- ${name}\n${text.trimEnd().split('\n').slice(-LAST_LINES).map(shortLine).join('\n')}`,
      );
    return [...this.log, ...said, ''].join('\n');
  }

  /** What runs of it ends, and its files go; the lab stays. */
  async leave(): Promise<void> {
    this.endGuest();
    const folders = [
      this.lab.vmFolder(this.vmId),
      ...[this.lab.a, this.lab.b].map(({ dataDir }) => join(dataDir, 'images', this.vmId)),
    ];
    await Promise.all(folders.map(removed));
    if (!this.relay.listens) await this.relay.listen();
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.endGuest();
    await endPlace(this);
    for (const disk of Object.values(this.disks)) await disk?.remove();
  }

  protected endGuest(): void {
    // Nothing runs but the lab.
  }
}

/** Until nothing is written into it any more: the removal of one that is written into fails. */
async function removed(folder: string): Promise<void> {
  let last: unknown;
  const gone = (): boolean => {
    try {
      rmSync(folder, { recursive: true, force: true });
      return true;
    } catch (error) {
      last = error;
      return false;
    }
  };
  await until(20_000, `the removal of ${folder}`, gone).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${String(last)}`);
  });
}

/** A line of an agent's log without what Temporal adds to it. */
function shortLine(line: string): string {
  try {
    const { time, msg, activityType, err, ...rest } = JSON.parse(line) as {
      time: string;
      msg: string;
      activityType?: string;
      err?: { message?: string; details?: unknown };
    } & Record<string, unknown>;
    if (activityType === undefined) return line.slice(0, 400);
    return (
      `${time} ${msg} ${activityType} ${JSON.stringify(rest.attempt)} ${err?.message ?? ''} ` +
      JSON.stringify(err?.details ?? '')
    ).slice(0, 600);
  } catch {
    return line.slice(0, 400);
  }
}
