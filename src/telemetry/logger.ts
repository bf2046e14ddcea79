/**
 * Logs with pino, one JSON object a line on standard error, and the Temporal SDK's own through the same. Levels from the
 * user's side: error means that something the user asked for did not happen.
 */
import type { LogLevel, LogMetadata, Logger as TemporalLogger } from '@temporalio/worker';
import pino, { type Logger } from 'pino';
import type { ErrorCode } from '../model/error-codes';

export type { Logger } from 'pino';

/** @param debug DWCP_DEBUG, or --debug */
export function createLogger(name: string, debug: boolean): Logger {
  return pino(
    {
      name,
      level: debug ? 'debug' : 'info',
      base: { name, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

const LEVELS: Readonly<Record<LogLevel, 'trace' | 'debug' | 'info' | 'warn' | 'error'>> = {
  TRACE: 'trace',
  DEBUG: 'debug',
  INFO: 'info',
  WARN: 'warn',
  ERROR: 'error',
};

/** The SDK warns of things that are right here: agents serve no workflows. */
const EXPECTED = /No workflows registered/;

/** Said once, with its code, where payloads are read; the SDK says it with each try, and the whole task beside it. */
const TOLD: ErrorCode = 'PAYLOAD_UNREADABLE';

function isTold(meta: LogMetadata | undefined): boolean {
  const error: unknown = meta?.error;
  return typeof error === 'object' && error !== null && 'type' in error && error.type === TOLD;
}

export function temporalLogger(logger: Logger): TemporalLogger {
  const log = (level: LogLevel, message: string, meta?: LogMetadata): void => {
    const quiet = level === 'INFO' || EXPECTED.test(message) || isTold(meta);
    const quieter = quiet ? 'debug' : LEVELS[level];
    logger[quieter](withError(meta), message);
  };
  return {
    log,
    trace: (message, meta) => log('TRACE', message, meta),
    debug: (message, meta) => log('DEBUG', message, meta),
    info: (message, meta) => log('INFO', message, meta),
    warn: (message, meta) => log('WARN', message, meta),
    error: (message, meta) => log('ERROR', message, meta),
  };
}

function withError(meta: LogMetadata | undefined): Record<string, unknown> {
  const { error, ...rest } = (meta ?? {}) as Record<string, unknown>;
  return error === undefined ? rest : { ...rest, err: error };
}
