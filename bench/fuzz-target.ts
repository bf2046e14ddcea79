/**
 * What is fuzzed: a target makes an input of chance and plays it against the product. An input is accepted, or refused with a DwcpError
 * that has a code the other side can read; everything else that is thrown is a finding.
 */
import { type ErrorCode, isErrorCode } from '../src/model/error-codes';
import { DwcpError, errorReportSchema } from '../src/model/errors';
import type { Draw } from './fuzz-draw';

export type Outcome = 'accepted' | ErrorCode;

export interface Target {
  readonly name: string;
  /** Inputs among a thousand; those that open real sessions are few. */
  readonly share: number;
  /** @param index of the input, for what has to have a name of its own @param told what the input was, for whoever looks at a finding */
  play(draw: Draw, index: number, told: (what: unknown) => void): Outcome | Promise<Outcome>;
  /** How often what it plays has got as far as each step that it knows: none may be out of its reach. */
  readonly reached?: Readonly<Record<string, number>>;
  close?(): Promise<void>;
}

/** Something of the product that is not as it has to be. */
export class Finding extends Error {}

/** Mistakes of a program, not of what it was given. */
function isMistake(error: unknown): boolean {
  return error instanceof TypeError || error instanceof ReferenceError || error instanceof EvalError;
}

/** A frame that this side could not even write: no other side has said so. */
const OWN = /is over its limit|requests are open/;

/**
 * What a refusal is.
 * @param told it may be what the other side says that it has had
 * @throws Finding where it is none that may reach anybody
 */
export function refusal(error: unknown, told = false): ErrorCode {
  if (!(error instanceof DwcpError))
    throw new Finding(`thrown that is no DwcpError: ${describe(error)}`, { cause: error });
  if (!isErrorCode(error.code)) throw new Finding(`a code that no table has: ${String(error.code)}`, { cause: error });
  if (told && error.code === 'INTERNAL' && error.cause === undefined && !OWN.test(error.message)) return error.code;
  if (error.code === 'INTERNAL') throw new Finding(`INTERNAL: ${describe(error.cause ?? error)}`, { cause: error });
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause)
    if (isMistake(cause)) throw new Finding(`${error.code} stands for ${describe(cause)}`, { cause: error });
  const report = errorReportSchema.safeParse(error.report());
  if (!report.success)
    throw new Finding(`a report of ${error.code} that no other side can read: ${error.message.length} characters`);
  if (error.message.includes('\n'))
    throw new Finding(`a refusal of more than one line: ${error.message.slice(0, 200)}`);
  return error.code;
}

export function describe(error: unknown): string {
  return error instanceof Error
    ? `${error.name}: ${error.message.slice(0, 300)}`
    : `${typeof error} ${String(error).slice(0, 300)}`;
}

/** @returns what became of it @throws Finding */
export function outcomeOf(work: () => void, told = false): Outcome {
  try {
    work();
    return 'accepted';
  } catch (error) {
    if (error instanceof Finding) throw error;
    return refusal(error, told);
  }
}
