/**
 * The names that DWCP and its callers agree on: workflow types and ids, task queues, messages, search attributes.
 * KEEP IN SYNC: contract/go is checked against these by its golden files. The names of workflows that only DWCP's own commands
 * and workflows start stand here too.
 */

export const CONTROL_QUEUE = 'dwcp.control';

export function hostQueue(hostId: string): string {
  return `host.${hostId}`;
}

/** What callers start. */
export const WORKFLOWS = {
  migrateVm: 'migrateVm',
  warmBaseline: 'warmBaseline',
  pruneBaselines: 'pruneBaselines',
  trainDictionary: 'trainDictionary',
} as const;

/** What only commands and workflows of DWCP start. */
export const OWN_WORKFLOWS = {
  planMigration: 'planMigration',
  surveyLink: 'surveyLink',
  connectHosts: 'connectHosts',
  keepBaselines: 'keepBaselines',
} as const;

export function migrationWorkflowId(vmId: string): string {
  return `migrate-vm:${vmId}`;
}

export function warmWorkflowId(vmId: string, destinationHost: string): string {
  return `warm-baseline:${vmId}:${destinationHost}`;
}

export const PRUNE_WORKFLOW_ID = 'prune-baselines';

export function trainWorkflowId(vmType: string): string {
  return `train-dictionary:${vmType}`;
}

/** @param attempt what tells one plan of a VM from another: any number of them may be made at a time */
export function planWorkflowId(vmId: string, attempt: string): string {
  return `plan-migration:${vmId}:${attempt}`;
}

export function surveyWorkflowId(sourceHost: string, destinationHost: string): string {
  return `survey-link:${sourceHost}:${destinationHost}`;
}

export function connectWorkflowId(sourceHost: string, destinationHost: string): string {
  return `connect-hosts:${sourceHost}:${destinationHost}`;
}

export function keepBaselinesWorkflowId(migrationId: string): string {
  return `keep-baselines:${migrationId}`;
}

export const MESSAGES = {
  progressQuery: 'progress',
  reportProgress: 'report_progress',
  cancelSignal: 'request_cancel',
  retryStep: 'retry_step',
  abortMigration: 'abort_migration',
  setBandwidthLimit: 'set_bandwidth_limit',
} as const;

/** Search attributes and their types; registered on the namespace before the first start. */
export const SEARCH_ATTRIBUTES = {
  VmId: 'KEYWORD',
  MigrationId: 'KEYWORD',
  SourceHost: 'KEYWORD',
  DestinationHost: 'KEYWORD',
  MigrationPhase: 'KEYWORD',
  MigrationMode: 'KEYWORD',
  NeedsOperator: 'BOOL',
  MigrationPriority: 'INT',
} as const;

/** NovaCron's priority (10 is the most urgent) as Temporal's priority key (1 is the most urgent of 5). */
export function temporalPriorityKey(priority: number): number {
  return 6 - Math.ceil(priority / 2);
}
