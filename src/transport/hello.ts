/**
 * The first exchange on every connection, and again whenever an idle one is put to use:
 *
 *   dialler  HELLO {role, protocol, sessionId, epoch, stream, grant}  ->
 *                              <-  WELCOME {hostId, release}   or   REFUSED {code, message}, then close
 *
 * `settle` is a control connection for a hand-over alone, let in where DWCP sessions are not. `idle` keeps the
 * connection for later (grant of purpose peer); every other role belongs to a session (grant of purpose session).
 * `epoch` numbers the source's attempts: a newer one takes over, an older one is refused.
 */
import { z } from 'zod';
import { DwcpError, errorReportSchema, fromReport } from '../model/errors';
import { hostIdSchema, migrationIdSchema } from '../model/ids';
import { buildFrame, type Frame } from './frame';

export const RELEASE = '0.1.0';
/**
 * Version of what a session says behind the hello: requests, events, batches. Both sides must have the same. The standard
 * transfer does not depend on it, so that it can take over where two releases do not understand each other.
 */
export const SESSION_PROTOCOL = 2;

export const ROLES = ['control', 'data', 'standard', 'settle', 'idle'] as const;
export type Role = (typeof ROLES)[number];

/** A source numbers its attempts from 2^32 times its starts on, or by a clock's milliseconds: a million starts. Nothing outranks every one of them. */
const MAX_EPOCH = 2 ** 52;

const grantSchema = z.strictObject({
  purpose: z.enum(['session', 'peer']),
  subject: z.string().min(1).max(300),
  expiresAtMs: z.int().min(0),
  token: z.string().min(1).max(100),
});

export const helloSchema = z.strictObject({
  role: z.enum(ROLES),
  /** The migration's id; for `idle` connections the source's host id. */
  sessionId: migrationIdSchema,
  epoch: z.int().min(0).max(MAX_EPOCH),
  stream: z.int().min(0).max(65_535),
  sourceHost: hostIdSchema,
  release: z.string().max(40),
  protocol: z.int().min(0),
  grant: grantSchema,
});
export type Hello = z.infer<typeof helloSchema>;
/** What every hello of a session has in common. */
export type SessionHello = Omit<Hello, 'release' | 'protocol' | 'role' | 'stream'>;

const welcomeSchema = z.strictObject({ hostId: hostIdSchema, release: z.string().max(40) });
export type Welcome = z.infer<typeof welcomeSchema>;

/** The JSON of a frame's meta, checked. @throws PROTOCOL_VIOLATION */
export function readMeta<T>(schema: z.ZodType<T>, frame: Frame): T {
  let value: unknown;
  try {
    value = JSON.parse(frame.meta.toString('utf8'));
  } catch (cause) {
    throw new DwcpError('PROTOCOL_VIOLATION', `A ${frame.type} frame holds no JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new DwcpError(
    'PROTOCOL_VIOLATION',
    `A ${frame.type} frame is malformed at ${issue?.path.join('.') ?? '?'}: ${issue?.message ?? ''}`,
  );
}

export function jsonFrame(type: 'hello' | 'welcome' | 'refused', value: unknown): Buffer {
  return buildFrame(type, 0, Buffer.from(JSON.stringify(value), 'utf8'));
}

export function refusedFrame(error: DwcpError): Buffer {
  return jsonFrame('refused', {
    ...error.report(),
    message: error.message.slice(0, 1000),
    hint: error.hint.slice(0, 1000),
  });
}

/** What the answer to a hello says. @throws the refusal, as the error that the other side had */
export function readAnswer(frame: Frame): Welcome {
  if (frame.type === 'refused') throw fromReport({ side: 'destination', ...readMeta(errorReportSchema, frame) });
  return readMeta(welcomeSchema, frame);
}
