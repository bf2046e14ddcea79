/**
 * The one error class. It carries a code of error-codes.ts, where it happened (phase, side) and what helps (hint);
 * callers compare codes, nobody parses the text. Turning it into a Temporal failure is activities/to-failure.ts.
 */
import { z } from 'zod';
import type { ErrorCodeSpec } from './error-code-spec';
import { ERROR_CODES, type ErrorCode, isErrorCode } from './error-codes';
import type { Side } from './ids';
import { ownValue } from './own-value';
import { PHASE_NAMES, type Phase } from './phases';

export interface DwcpErrorFields {
  readonly phase?: Phase | undefined;
  readonly side?: Side | undefined;
  /** What would mend it, where more is known than the table says. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** What of an error crosses a border (control connection, Temporal failure details, `--json`). */
export interface ErrorReport {
  readonly code: ErrorCode;
  readonly message: string;
  readonly phase?: Phase;
  readonly side?: Side;
  readonly hint: string;
  /** Of what it came of. */
  readonly because?: ErrorCode;
}

/** Characters of a message, or a hint, that cross a border. */
const MAX_TEXT = 4000;

export class DwcpError extends Error {
  readonly code: ErrorCode;
  readonly phase: Phase | undefined;
  readonly side: Side | undefined;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, fields: DwcpErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = 'DwcpError';
    this.code = code;
    this.phase = fields.phase;
    this.side = fields.side;
    this.hint = fields.hint ?? ERROR_CODES[code].mend;
  }

  get spec(): ErrorCodeSpec {
    return ERROR_CODES[this.code];
  }

  /** The code of what it came of, where that has one. */
  get because(): ErrorCode | undefined {
    return this.cause instanceof DwcpError ? this.cause.code : undefined;
  }

  /** No longer than the other side reads. */
  report(): ErrorReport {
    return {
      code: this.code,
      message: this.message.slice(0, MAX_TEXT),
      hint: this.hint.slice(0, MAX_TEXT),
      ...(this.phase && { phase: this.phase }),
      ...(this.side && { side: this.side }),
      ...(this.because && { because: this.because }),
    };
  }
}

/** A report as it comes from elsewhere: bounded, and with codes that this release may not know. */
export const errorReportSchema = z.object({
  code: z.string().max(60),
  message: z.string().max(MAX_TEXT),
  side: z.enum(['source', 'destination', 'control']).optional(),
  phase: z.enum(PHASE_NAMES as [Phase, ...Phase[]]).optional(),
  hint: z.string().max(MAX_TEXT).optional(),
  because: z.string().max(60).optional(),
});

/** What of a value did not fit its schema: one short line, whatever names and texts the value has. */
export function misfitOf({ issues: [issue] }: z.ZodError): string {
  const at = issue?.path.join('.').slice(0, 120) || '?';
  return `${at}: ${issue?.message.slice(0, 300) ?? ''}`.replace(/[\p{Cc}\p{Cs}\u2028\u2029]/gu, ' ');
}

/** The error that a report from the other side of a border stands for. An unknown code becomes INTERNAL. */
export function fromReport(report: z.infer<typeof errorReportSchema>): DwcpError {
  const code = isErrorCode(report.code) ? report.code : 'INTERNAL';
  const { message, side, phase, hint, because } = report;
  const cause = because !== undefined && isErrorCode(because) ? new DwcpError(because, message) : undefined;
  return new DwcpError(code, message, { side, phase, hint, cause });
}

const CODE_BY_ERRNO: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
  ECONNREFUSED: 'PEER_UNREACHABLE',
  ECONNRESET: 'PEER_UNREACHABLE',
  ECONNABORTED: 'PEER_UNREACHABLE',
  EPIPE: 'PEER_UNREACHABLE',
  ETIMEDOUT: 'PEER_UNREACHABLE',
  EHOSTUNREACH: 'PEER_UNREACHABLE',
  ENETUNREACH: 'PEER_UNREACHABLE',
  ENOTFOUND: 'PEER_UNREACHABLE',
  EAI_AGAIN: 'PEER_UNREACHABLE',
};

/** The system's name of an error (`ENOENT`), where it has one. By shape, not class: errors cross realms. */
export function errnoOf(error: unknown): string | undefined {
  const code: unknown = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

export function messageOf(error: unknown): string {
  const message: unknown = typeof error === 'object' && error !== null && 'message' in error ? error.message : error;
  return typeof message === 'string' ? message : JSON.stringify(message);
}

/** Any thrown value as a DwcpError; a full disk and network errnos find their code, the rest becomes `otherwise`. */
export function toDwcpError(error: unknown, otherwise: ErrorCode, fields: DwcpErrorFields = {}): DwcpError {
  if (error instanceof DwcpError) return error;
  const code = ownValue(CODE_BY_ERRNO, errnoOf(error) ?? '') ?? otherwise;
  return new DwcpError(code, messageOf(error), { ...fields, cause: error });
}

export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is DwcpError {
  return error instanceof DwcpError && codes.includes(error.code);
}
