/** The public face of activities/: factories for workers, types for workflows. */
export { type ControlActivities, createControlActivities, type Outcome } from './control-queue';
export {
  type BaselineCheck,
  createDestinationActivities,
  type DestinationActivities,
  type DestinationDependencies,
} from './destination-host';
export { createDictionaryActivities, type DictionaryActivities } from './dictionaries';
export { createProgressReporter } from './progress-reporter';
export type { MovedGuest } from './source-guest';
export { createSourceActivities, type SourceActivities } from './source-host';
export { type PreparedSource, type SourceDependencies, type SourceEvent } from './source-inputs';
