/** Where a command that needs no server looks: this host's own data folder. */
import type { Command } from 'commander';
import { resolveDataDir } from '../../agent/host';
import type { ProcessOptions } from '../../model/options';
import { type Flags, outputOf, withGlobals } from '../flags';
import type { Output } from '../output';
import { processOptions } from '../settings';

/** The options that name it. */
export const PLACE = ['hostId', 'dataDir'];

export interface Place {
  readonly dataDir: string;
  readonly output: Output;
  readonly options: ProcessOptions;
}

export function placeOf(flags: Flags, command: Command): Place {
  const options = processOptions(withGlobals(flags, command));
  return { dataDir: resolveDataDir(options), options, output: outputOf(command) };
}
