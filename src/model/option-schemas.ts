/** By what the options of a migration are checked where they come in: made from the table of options, which says what they mean. */
import { z } from 'zod';
import type { OptionSpec } from './option-spec';
import { MIGRATION_OPTIONS, type MigrationOptions } from './options';

function optionSchema(spec: OptionSpec): z.ZodType {
  const described = (schema: z.ZodType): z.ZodType =>
    schema.describe(spec.unit ? `${spec.help} (${spec.unit})` : spec.help);
  if (spec.type === 'boolean') return described(z.boolean());
  if (spec.type === 'text') return described(z.string().max(4096));
  let schema = spec.type === 'integer' ? z.int() : z.number();
  if (spec.min !== undefined) schema = schema.min(spec.min);
  if (spec.max !== undefined) schema = schema.max(spec.max);
  return described(schema);
}

/** Schema of the overrides a request may carry: every option optional, unknown names refused. */
export const migrationOverridesSchema = z.strictObject(
  Object.fromEntries(Object.entries(MIGRATION_OPTIONS).map(([name, spec]) => [name, optionSchema(spec).optional()])),
) as unknown as z.ZodType<Partial<MigrationOptions>>;

/** All options of a migration, as a workflow hands them to activities: one of a release before does not know the newest. */
export const migrationOptionsSchema = z.strictObject(
  Object.fromEntries(
    Object.entries(MIGRATION_OPTIONS).map(([name, spec]) => [name, optionSchema(spec).default(spec.default)]),
  ),
) as unknown as z.ZodType<MigrationOptions>;
