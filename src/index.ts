/**
 * The package's entry: the orchestrator for programs that have VMs moved through Temporal, the adapter for those that
 * move images agent to agent, and the types of all that goes in and out.
 */
export {
  type AdapterConfig,
  type AdapterDestination,
  type AdapterImage,
  createMigrationAdapter,
  type MigrationAdapter,
} from './control/adapter';
export { type MigrationState, type MigrationStatus } from './control/migration-status';
export {
  createOrchestrator,
  type MigrateOptions,
  type MigrationConfig,
  type Orchestrator,
} from './control/orchestrator';
export { type OrchestratorMetrics } from './control/orchestrator-metrics';
export { payloadConverter } from './control/payload-codec';
export type { RetryClass } from './model/error-code-spec';
export { ERROR_CODES, type ErrorCode } from './model/error-codes';
export { DwcpError, type ErrorReport } from './model/errors';
export { EXIT } from './model/exit-codes';
export {
  type ImageProgress,
  type ImageResult,
  type MigrationProgress,
  type MigrationRequest,
  type MigrationResult,
} from './model/migration';
export { CONTROL_QUEUE, hostQueue, MESSAGES, migrationWorkflowId, SEARCH_ATTRIBUTES, WORKFLOWS } from './model/names';
export { MIGRATION_OPTIONS, type MigrationOptions, PROCESS_OPTIONS, type ProcessOptions } from './model/options';
export { type MigrationPlan } from './model/plan';
export { type SendProgress, type SentImage } from './sync/source/image-sender';
export { type TrainingReport } from './sync/upkeep/train-dictionary';
