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
import { DwcpError, errorReportSchema, fromReport, misfitOf } from '../model/errors';
import { hostIdSchema, migrationIdSchema } from '../model/ids';
import { isDeep } from '../model/json-depth';
import { buildFrame, type Frame } from './frame';

export const RELEASE = '0.1.0';
/**
 * Version of what a session says behind the hello: requests, events, batches. Both sides must have the same. The standard
 * transfer does not depend on it, so that it can take over where two releases do not understand each other.
 */
export const SESSION_PROTOCOL = 3;

export const ROLES = ['control', 'data', 'standard', 'settle', 'idle'] as const;
export type Role = (typeof ROLES)[number];

/** A source numbers its attempts from 2^32 times its starts on, or by a clock's milliseconds. Nothing outranks every one of them. */
const MAX_EPOCH = 2 ** 52;

const grantSchema = z.strictObject({
  purpose: z.enum(['session', 'peer']),
  subject: z.string().min(1).max(300),
  holder: hostIdSchema,
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

/** No message has half of it. What is nested by the thousand ends whoever walks through it, or writes it down again. */
const MAX_DEPTH = 32;

/** The JSON of a frame's meta, checked. @throws PROTOCOL_VIOLATION */
export function readMeta<T>(schema: z.ZodType<T>, frame: Frame): T {
  let value: unknown;
  const text = frame.meta.toString('utf8');
  if (isDeep(text, MAX_DEPTH))
    throw new DwcpError('PROTOCOL_VIOLATION', `A ${frame.type} frame is nested more than ${MAX_DEPTH} deep`);
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new DwcpError('PROTOCOL_VIOLATION', `A ${frame.type} frame holds no JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new DwcpError('PROTOCOL_VIOLATION', `A ${frame.type} frame is malformed at ${misfitOf(parsed.error)}`);
}

export function jsonFrame(type: 'hello' | 'welcome' | 'refused', value: unknown): Buffer {
  return buildFrame(type, 0, Buffer.from(JSON.stringify(value), 'utf8'));
}

/** Of each text of a refusal, so that with what is around them both fit a frame. */
const REFUSED_TEXT_BYTES = 1800;

/** Never throws: it is said where a connection ends, also of what the other side has said. */
export function refusedFrame(error: DwcpError): Buffer {
  const { message, hint, ...report } = error.report();
  return jsonFrame('refused', { ...report, message: inBytes(message), hint: inBytes(hint) });
}

/** As much of a text as its JSON has room for: a character may take six bytes there. */
function inBytes(text: string): string {
  let kept = text.slice(0, REFUSED_TEXT_BYTES);
  while (Buffer.byteLength(JSON.stringify(kept)) > REFUSED_TEXT_BYTES)
    kept = kept.slice(0, -Math.ceil(kept.length / 8));
  return kept;
}

/** What the answer to a hello says. @throws the refusal, as the error that the other side had */
export function readAnswer(frame: Frame): Welcome {
  if (frame.type === 'refused') throw fromReport({ side: 'destination', ...readMeta(errorReportSchema, frame) });
  return readMeta(welcomeSchema, frame);
}
