/**
 * How one agent reaches another, as data that crosses borders: addresses as names or IP addresses, never anything else that a
 * socket could be opened by, and the grant that lets a session in.
 */
import { z } from 'zod';
import { hostIdSchema, nameSchema } from './ids';

const LABEL = '[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?';
const HOST_NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*\\.?$`);
/** With the zone of a link-local one, where it has one. */
const IPV6 = /^[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44}(?:%[A-Za-z0-9._-]{1,32})?$/;

export const addressSchema = z
  .string()
  .min(1)
  .max(253)
  .refine((text) => HOST_NAME.test(text) || IPV6.test(text), 'an address is a host name or an IP address');
export const portSchema = z.int().min(1).max(65_535);

/** Paths of one agent; a session opens streams on all of them. */
const MAX_FURTHER_PATHS = 15;
const pathSchema = z.strictObject({ address: addressSchema, port: portSchema });

export const grantSchema = z.strictObject({
  purpose: z.enum(['session', 'peer']),
  subject: nameSchema,
  holder: hostIdSchema,
  expiresAtMs: z.number().min(0).max(Number.MAX_SAFE_INTEGER),
  token: z.string().max(200),
});

/** As the destination's agent says it; who it is is not its own to say. */
export const reachedAtSchema = pathSchema.extend({
  furtherPaths: z.array(pathSchema).max(MAX_FURTHER_PATHS).readonly().optional(),
  grant: grantSchema,
});

export const destinationSchema = reachedAtSchema.extend({ hostId: hostIdSchema });
