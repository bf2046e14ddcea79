/**
 * What every command makes of its flags: their values, where its output goes, and the options that the program itself has.
 */
import type { Command } from 'commander';
import { createOutput, type Output } from './output';

export type Flags = Readonly<Record<string, unknown>>;

export function outputOf(command: Command): Output {
  return createOutput(command.optsWithGlobals().json === true);
}

/** With the configuration file that the program was given. */
export function withGlobals(flags: Flags, command: Command): Flags {
  return { ...flags, config: command.optsWithGlobals().config as unknown };
}
