/**
 * The orchestrator: what a program calls to have VMs moved. Starts, watches and steers migrations through Temporal; the
 * work itself is done by agents, and goes on when the caller is gone.
 */
import { randomUUID } from 'node:crypto';
import {
  type Client,
  WorkflowExecutionAlreadyStartedError,
  type WorkflowHandle,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import { ApplicationFailure, WorkflowIdConflictPolicy, WorkflowIdReusePolicy } from '@temporalio/common';
import { DwcpError, messageOf } from '../model/errors';
import { forgetOldest } from '../model/forget-oldest';
import {
  type MigrationRequest,
  type MigrationResult,
  migrationRequestSchema,
  migrationResultSchema,
} from '../model/migration';
import {
  CONTROL_QUEUE,
  MESSAGES,
  migrationWorkflowId,
  temporalPriorityKey,
  WORKFLOWS,
  warmWorkflowId,
} from '../model/names';
import { compileMigrationOptions, type MigrationOptions } from '../model/options';
import { TrustFolder, trustFolderOf } from '../trust/trust-folder';
import { connectClient, ofServer } from './connection';
import { signRequest } from './issuer';
import { failureOf, type MigrationStatus, statusOf } from './migration-status';
import { collectMetrics, type OrchestratorMetrics } from './orchestrator-metrics';

/** How the orchestrator reaches Temporal; without a client it connects by the TEMPORAL_* environment. */
export interface MigrationConfig {
  /** Has its own data converter: payloadConverter() makes the one that belongs to a payloadKeyFile. */
  readonly client?: Client;
  /** Folder with the operator's key that requests are signed with. Without it DWCP_TRUST_DIR, or the user's own. */
  readonly trustDir?: string;
  /** Keys that what Temporal keeps is encrypted with, as the option of that name. */
  readonly payloadKeyFile?: string;
}

/** Options of one migration; what is left out comes from the orchestrator's dwcpConfig, then from the defaults. */
export type MigrateOptions = Partial<MigrationOptions> & { readonly migrationId?: string };

export interface Orchestrator {
  /** Starts a migration. @returns its id; @throws MIGRATION_IN_PROGRESS, INVALID_INPUT, CONTROL_PLANE_UNREACHABLE */
  migrateVm(vmId: string, sourceHost: string, destinationHost: string, options?: MigrateOptions): Promise<string>;
  /** Brings the destination's baseline up to date without moving the VM. */
  warmBaseline(vmId: string, sourceHost: string, destinationHost: string, options?: MigrateOptions): Promise<string>;
  /** @throws MIGRATION_UNKNOWN */
  getMigrationStatus(migrationId: string): Promise<MigrationStatus>;
  /** Rolls back before the point of no return; behind it the migration completes forward. @throws MIGRATION_UNKNOWN where it has ended */
  cancelMigration(migrationId: string): Promise<void>;
  /**
   * Tries a parked step again; a guest that does not converge may be allowed a longer pause, or to be slowed down.
   * @throws NOT_PARKED; MIGRATION_UNKNOWN where it has ended
   */
  retryMigration(
    migrationId: string,
    note?: string,
    changed?: Partial<Pick<MigrationOptions, 'maxDowntimeMs' | 'autoConverge'>>,
  ): Promise<void>;
  /** Parked: gives up. @throws NOT_PARKED; MIGRATION_UNKNOWN where it has ended */
  abortMigration(migrationId: string, reason?: string, acceptTwoCopies?: boolean): Promise<void>;
  /** In bytes a second; 0 takes the limit off. @throws MIGRATION_UNKNOWN where it has ended */
  setBandwidthLimit(migrationId: string, bytesPerSecond: number): Promise<void>;
  /** Waits for the end. @throws what it failed with */
  waitForResult(migrationId: string): Promise<MigrationResult>;
  listMigrations(limit?: number): Promise<readonly MigrationStatus[]>;
  getMetrics(): Promise<OrchestratorMetrics>;
  close(): Promise<void>;
}

/** @throws CONTROL_PLANE_UNREACHABLE; INVALID_INPUT for options that are none */
export async function createOrchestrator(
  migrationConfig: MigrationConfig = {},
  dwcpConfig: Partial<MigrationOptions> = {},
): Promise<Orchestrator> {
  const client = migrationConfig.client ?? (await connectClient(migrationConfig.payloadKeyFile ?? ''));
  const path = trustFolderOf({ trustDir: migrationConfig.trustDir ?? process.env.DWCP_TRUST_DIR ?? '' });
  // Looked for at each request: whoever starts beside the control plane may be there before it has made the folder.
  const trust = (): TrustFolder | undefined => TrustFolder.find(path);
  trust();
  return new TemporalOrchestrator(
    { client, trust, ownsClient: migrationConfig.client === undefined },
    checked(dwcpConfig),
  );
}

const MAX_REMEMBERED = 500;
/** Which workflows are migrations, as a query of the server's. */
const OF_MIGRATIONS = `WorkflowType IN ("${WORKFLOWS.migrateVm}", "${WORKFLOWS.warmBaseline}")`;

interface Means {
  readonly client: Client;
  /** Whose key signs what is asked for. */
  readonly trust: () => TrustFolder | undefined;
  readonly ownsClient: boolean;
}

class TemporalOrchestrator implements Orchestrator {
  readonly #client: Client;
  readonly #defaults: Partial<MigrationOptions>;
  readonly #ownsClient: boolean;
  readonly #trust: Means['trust'];
  /** Runs started here: known at once, while visibility takes a moment. The last some hundred. */
  readonly #started = new Map<string, { readonly workflowId: string; readonly runId: string }>();

  constructor({ client, trust, ownsClient }: Means, defaults: Partial<MigrationOptions>) {
    this.#client = client;
    this.#trust = trust;
    this.#defaults = defaults;
    this.#ownsClient = ownsClient;
  }

  migrateVm(vmId: string, sourceHost: string, destinationHost: string, options: MigrateOptions = {}): Promise<string> {
    const { migrateVm } = WORKFLOWS;
    return this.#start(migrateVm, migrationWorkflowId(vmId), { vmId, sourceHost, destinationHost }, options);
  }

  warmBaseline(
    vmId: string,
    sourceHost: string,
    destinationHost: string,
    options: MigrateOptions = {},
  ): Promise<string> {
    const workflowId = warmWorkflowId(vmId, destinationHost);
    return this.#start(WORKFLOWS.warmBaseline, workflowId, { vmId, sourceHost, destinationHost }, options);
  }

  async getMigrationStatus(migrationId: string): Promise<MigrationStatus> {
    return statusOf(await this.#find(migrationId));
  }

  async cancelMigration(migrationId: string): Promise<void> {
    const handle = await this.#find(migrationId);
    await handle.signal(MESSAGES.cancelSignal).catch((error: unknown) => {
      throw hasEnded(migrationId, error);
    });
  }

  async retryMigration(
    migrationId: string,
    note?: string,
    changed: Partial<Pick<MigrationOptions, 'maxDowntimeMs' | 'autoConverge'>> = {},
  ): Promise<void> {
    await this.#update(migrationId, MESSAGES.retryStep, { ...changed, ...(note !== undefined && { note }) });
  }

  async abortMigration(migrationId: string, reason?: string, acceptTwoCopies?: boolean): Promise<void> {
    await this.#update(migrationId, MESSAGES.abortMigration, {
      ...(reason !== undefined && { reason }),
      ...(acceptTwoCopies !== undefined && { acceptTwoCopies }),
      ...(acceptTwoCopies === true && {
        authorisation: signRequest(this.#trust(), { mode: 'accept-two-copies', migrationId }),
      }),
    });
  }

  async setBandwidthLimit(migrationId: string, bytesPerSecond: number): Promise<void> {
    await this.#update(migrationId, MESSAGES.setBandwidthLimit, { bytesPerSecond });
  }

  async waitForResult(migrationId: string): Promise<MigrationResult> {
    try {
      return migrationResultSchema.parse(await (await this.#find(migrationId)).result());
    } catch (error) {
      throw failureOf(error);
    }
  }

  async listMigrations(limit = 50): Promise<readonly MigrationStatus[]> {
    const statuses: MigrationStatus[] = [];
    for await (const { workflowId, runId } of this.#client.workflow.list({ query: OF_MIGRATIONS })) {
      statuses.push(await statusOf(this.#client.workflow.getHandle(workflowId, runId)));
      if (statuses.length >= limit) break;
    }
    return statuses;
  }

  async getMetrics(): Promise<OrchestratorMetrics> {
    return collectMetrics(await this.listMigrations(100));
  }

  async close(): Promise<void> {
    if (this.#ownsClient) await this.#client.connection.close();
  }

  async #start(
    workflowType: string,
    workflowId: string,
    { vmId, sourceHost, destinationHost }: Pick<MigrationRequest, 'vmId' | 'sourceHost' | 'destinationHost'>,
    { migrationId = randomUUID(), ...given }: MigrateOptions,
  ): Promise<string> {
    const options = checked({ ...this.#defaults, ...given });
    const mode = workflowType === WORKFLOWS.migrateVm ? 'migrate' : 'warm';
    const unsigned = parsed({ schemaVersion: 1, vmId, sourceHost, destinationHost, migrationId, options });
    const authorisation = signRequest(this.#trust(), { mode, migrationId, vmId, sourceHost, destinationHost });
    const request = { ...unsigned, ...(authorisation !== undefined && { authorisation }) };
    const priority = options.priority ?? 5;
    try {
      const handle = await this.#client.workflow.start(workflowType, {
        workflowId,
        taskQueue: CONTROL_QUEUE,
        args: [request],
        workflowIdConflictPolicy: WorkflowIdConflictPolicy.FAIL,
        workflowIdReusePolicy: WorkflowIdReusePolicy.ALLOW_DUPLICATE,
        memo: { migrationId },
        priority: { priorityKey: temporalPriorityKey(priority) },
        staticSummary: `${vmId}: ${sourceHost} → ${destinationHost}`,
        staticDetails:
          'Cancel rolls back before the switchover; from there on the migration completes forward. Terminate leaves the ' +
          'clean-up to the agents’ sweep.',
      });
      this.#remember(migrationId, workflowId, handle.firstExecutionRunId);
      return migrationId;
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw ofServer(error);
      const running = await this.#client.workflow.getHandle(workflowId).describe();
      const other = typeof running.memo?.migrationId === 'string' ? running.memo.migrationId : undefined;
      // The same request again is answered as the first time.
      if (other === migrationId) {
        this.#remember(migrationId, workflowId, running.runId);
        return migrationId;
      }
      throw new DwcpError('MIGRATION_IN_PROGRESS', `VM ${vmId} is being migrated already (${other ?? running.runId})`);
    }
  }

  #remember(migrationId: string, workflowId: string, runId: string): void {
    this.#started.set(migrationId, { workflowId, runId });
    forgetOldest(this.#started, MAX_REMEMBERED);
  }

  /** The run of a migration, by its id; a VM's id names its latest. After a reset it is the newest run. */
  async #find(migrationId: string): Promise<WorkflowHandle> {
    try {
      const query = `MigrationId = "${migrationId.replaceAll('"', '')}" AND ${OF_MIGRATIONS}`;
      for await (const { workflowId, runId } of this.#client.workflow.list({ query }))
        return this.#client.workflow.getHandle(workflowId, runId);
      const started = this.#started.get(migrationId);
      if (started) return this.#client.workflow.getHandle(started.workflowId, started.runId);
      const handle = this.#client.workflow.getHandle(migrationWorkflowId(migrationId));
      const { runId } = await handle.describe();
      return this.#client.workflow.getHandle(handle.workflowId, runId);
    } catch (error) {
      if (error instanceof WorkflowNotFoundError)
        throw new DwcpError('MIGRATION_UNKNOWN', `No migration ${migrationId} is known`);
      throw ofServer(error);
    }
  }

  async #update(migrationId: string, name: string, input: Record<string, unknown>): Promise<void> {
    const handle = await this.#find(migrationId);
    try {
      await handle.executeUpdate(name, { args: [input] });
    } catch (error) {
      if (error instanceof WorkflowUpdateFailedError && error.cause instanceof ApplicationFailure)
        throw failureOf(error);
      throw hasEnded(migrationId, error);
    }
  }
}

function checked(options: Partial<MigrationOptions>): Partial<MigrationOptions> {
  try {
    compileMigrationOptions(options);
    return options;
  } catch (cause) {
    throw new DwcpError('INVALID_INPUT', messageOf(cause), { cause });
  }
}

function parsed(request: Record<string, unknown>): Record<string, unknown> {
  const result = migrationRequestSchema.safeParse(request);
  if (result.success) return result.data;
  throw new DwcpError(
    'INVALID_INPUT',
    result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; '),
  );
}

/** Whatever is asked of a migration that has ended is refused in the same words. */
function hasEnded(migrationId: string, error: unknown): DwcpError {
  return error instanceof WorkflowNotFoundError
    ? new DwcpError('MIGRATION_UNKNOWN', `Migration ${migrationId} has ended already`)
    : ofServer(error);
}
