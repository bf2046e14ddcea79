/** The public face of activities/: factories for workers, types for workflows. */
export { type AuditHeadNow } from './border';
export { type ControlActivities, createControlActivities, type Outcome } from './control-queue';
export {
  createDestinationActivities,
  type DestinationActivities,
  type DestinationDependencies,
} from './destination-host';
export { createDictionaryActivities, type DictionaryActivities } from './dictionaries';
export { createProgressReporter } from './progress-reporter';
export { type SayWord } from './say-word';
export { createSourceActivities, type SourceActivities } from './source-host';
export { type SourceDependencies, type SourceEvent } from './source-inputs';
