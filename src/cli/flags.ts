/**
 * What every command makes of its flags: their values, where its output goes, and the options that the program itself has.
 */
import type { Command } from 'commander';
import { DwcpError } from '../model/errors';
import { createOutput, type Output } from './output';

export type Flags = Readonly<Record<string, unknown>>;

export function outputOf(command: Command): Output {
  return createOutput(command.optsWithGlobals().json === true);
}

/** With the configuration file and the key file that the program was given. */
export function withGlobals(flags: Flags, command: Command): Flags {
  const { config, payloadKeyFile } = command.optsWithGlobals<Flags>();
  return { ...flags, config, payloadKeyFile };
}

/** Of a flag that takes a port; 0 takes a free one. @throws CONFIG_INVALID */
export function portOf(text: unknown): number {
  const port = Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  throw new DwcpError('CONFIG_INVALID', `A port is a number from 0 to 65535, not "${String(text)}"`);
}
