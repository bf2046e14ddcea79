/**
 * What commands print: text for people, or with --json one object a line. Errors are one line that says what, where and
 * the mend, and the exit code from the table of codes.
 */

import { DwcpError, toDwcpError } from '../model/errors';
import { EXIT } from '../model/exit-codes';

export interface Output {
  readonly json: boolean;
  /** A result or an event: text for people is made only where it is shown. */
  emit(object: Readonly<Record<string, unknown>>, text: () => string): void;
  /** A note for people; with --json an event of its own. */
  say(line: string): void;
}

export function createOutput(json: boolean): Output {
  return {
    json,
    emit: (object, text) => process.stdout.write(json ? `${JSON.stringify(object)}\n` : `${text()}\n`),
    say: (line) => process.stdout.write(json ? `${JSON.stringify({ event: 'note', text: line })}\n` : `${line}\n`),
  };
}

/** Prints an error and sets the exit code. */
export function fail(error: unknown, json: boolean): void {
  const reason = toDwcpError(error, 'INTERNAL');
  if (json) process.stdout.write(`${JSON.stringify({ event: 'error', ok: false, ...reason.report() })}\n`);
  else
    process.stderr.write(
      `dwcp: ${reason.code}${reason.side ? ` (${reason.side})` : ''}: ${reason.message}. ${reason.hint}.\n`,
    );
  if (reason.code === 'INTERNAL' && process.env.DWCP_DEBUG === 'true' && error instanceof Error)
    process.stderr.write(`${error.stack ?? ''}\n`);
  process.exitCode = reason.spec.exitCode;
}

export function interrupted(): DwcpError {
  return new DwcpError('CANCELLED', 'Interrupted');
}

/** Aligned columns. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export { EXIT };
