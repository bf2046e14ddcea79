/** Where a command that needs no server looks: this host's own data folder. */
import type { Command } from 'commander';
import { resolveDataDir } from '../../agent/host';
import type { ProcessOptions } from '../../model/options';
import { createOutput, type Output } from '../output';
import { processOptions } from '../settings';

export type Flags = Readonly<Record<string, unknown>>;

/** The options that name it. */
export const PLACE = ['hostId', 'dataDir'];

export function placeOf(
  flags: Flags,
  command: Command,
): { readonly dataDir: string; readonly output: Output; readonly options: ProcessOptions; readonly flags: Flags } {
  const all = { ...flags, config: command.optsWithGlobals().config as unknown };
  const options = processOptions(all);
  return {
    dataDir: resolveDataDir(options),
    options,
    output: createOutput(command.optsWithGlobals().json === true),
    flags,
  };
}
