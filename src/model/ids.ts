/**
 * Names that cross borders: VMs, hosts, images, migrations. They become file names, task queues and workflow ids, so
 * the alphabet is small and the length bounded. Schemas only; where a name comes from is the caller's business.
 */
import { z } from 'zod';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

function name(what: string, maxLength: number): z.ZodString {
  return z
    .string()
    .min(1, `${what} must not be empty`)
    .max(maxLength, `${what} is longer than ${maxLength} characters`)
    .regex(NAME, `${what} may hold letters, digits, '.', '_' and '-', and starts with a letter or digit`);
}

/** Any of them; what becomes a path is this at least. */
export const nameSchema = name('a name', 120);
export const vmIdSchema = name('VM id', 120);
/** What VMs have in common that look alike: `web`, `postgres`. */
export const vmTypeSchema = name('VM type', 60);
/** Which VM it is, whatever it is called: drawn where it is first seen, and goes with it. */
export const vmUuidSchema = z.guid();
/** Whose a VM is: only VMs of one tenant share anything. Without one a VM shares nothing with any other. */
export const tenantSchema = z.union([z.literal(''), name('tenant', 60)]);
export const baseNameSchema = name('base', 120);
/** Beside the folders of hosts that are named by their ids lies one of this name. */
const RESERVED_HOST = 'trust';
export const hostIdSchema = name('host id', 120).refine(
  (id) => id !== RESERVED_HOST,
  `host id "${RESERVED_HOST}" is reserved`,
);
export const imageIdSchema = name('image id', 60);
export const migrationIdSchema = name('migration id', 120);
/** gpu: the saved state of an accelerator; its numbers are taken apart where that pays. */
export const imageKindSchema = z.enum(['disk', 'memory', 'gpu']);

export type ImageKind = z.infer<typeof imageKindSchema>;
export type Side = 'source' | 'destination' | 'control';
