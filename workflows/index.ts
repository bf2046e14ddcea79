/** Every workflow type that the control worker serves, by its name. */
export { connectHosts } from './connect-hosts';
export { keepBaselines } from './keep-baselines';
export { migrateVm } from './migrate-vm';
export { planMigration } from './plan-migration';
export { pruneBaselines } from './prune-baselines';
export { surveyLink } from './survey-link';
export { trainDictionary } from './train-dictionary';
export { warmBaseline } from './warm-baseline';
