/**
 * The newest line of a host's audit log at a moment, as the host says it in what activities answer: Temporal's history keeps it where
 * whoever rewrites the log cannot reach. Signing and believing is src/trust/audit-heads.ts's.
 */
import { z } from 'zod';
import { hostIdSchema } from './ids';

/** The field of an activity's answer that it stands in, beside what ACTIVITY_RESULTS knows of that. */
export const AUDIT_HEAD = 'auditHead';

export const auditHeadSchema = z.strictObject({
  hostId: hostIdSchema,
  /** Number of the line. */
  seq: z.int().min(1),
  /** SHA-256 of the line. */
  head: z.string().regex(/^[0-9a-f]{64}$/),
  /** When it was signed. */
  at: z.iso.datetime(),
});
export type AuditHead = z.infer<typeof auditHeadSchema>;
