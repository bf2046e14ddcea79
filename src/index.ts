/**
 * The package's entry: the orchestrator for programs that have VMs moved through Temporal, the adapter for those that
 * move images agent to agent, and the types of all that goes in and out.
 */
export {
  createMigrationAdapter,
  type AdapterConfig,
  type AdapterDestination,
  type AdapterImage,
  type MigrationAdapter,
} from './control/adapter';
export {
  createOrchestrator,
  type MigrateOptions,
  type MigrationConfig,
  type Orchestrator,
} from './control/orchestrator';
export { type MigrationState, type MigrationStatus } from './control/migration-status';
export { type OrchestratorMetrics } from './control/orchestrator-metrics';
export { DwcpError, type ErrorReport } from './model/errors';
export { ERROR_CODES, EXIT, type ErrorCode, type RetryClass } from './model/error-codes';
export {
  type ImageProgress,
  type ImageResult,
  type MigrationProgress,
  type MigrationRequest,
  type MigrationResult,
} from './model/migration';
export { MIGRATION_OPTIONS, PROCESS_OPTIONS, type MigrationOptions, type ProcessOptions } from './model/options';
export { CONTROL_QUEUE, hostQueue, MESSAGES, migrationWorkflowId, SEARCH_ATTRIBUTES, WORKFLOWS } from './model/names';
export { type MigrationPlan } from './model/plan';
export { type SendProgress, type SentImage } from './sync/source/image-sender';
export { type TrainingReport } from './sync/upkeep/train-dictionary';
