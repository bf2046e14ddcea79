/**
 * Logs with pino, one JSON object a line on standard error, and the Temporal SDK's own through the same. Levels from the
 * user's side: error means that something the user asked for did not happen.
 */
import type { LogLevel, LogMetadata, Logger as TemporalLogger } from '@temporalio/worker';
import pino, { type Logger } from 'pino';

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

export function temporalLogger(logger: Logger): TemporalLogger {
  const log = (level: LogLevel, message: string, meta?: LogMetadata): void => {
    const quieter = level === 'INFO' || EXPECTED.test(message) ? 'debug' : LEVELS[level];
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
