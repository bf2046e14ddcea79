/**
 * `dwcp demo`: the whole system on one machine, in a minute.
 */
import type { Command } from 'commander';
import { DwcpError } from '../../model/errors';
import { MIB, parseSizeBytes } from '../../model/units';
import { runDemo } from '../demo/demo';
import { payloadKeyFileOf } from '../execute-workflow';
import { outputOf } from '../flags';
import { onSignalOnce } from '../signals';

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .description('Move a real VM between two agents on this machine, kill one in the middle, move it back')
    .option('--keep', 'leave everything running until Ctrl-C, to look at it in the Temporal UI')
    .option('--disk-size <size>', 'size of the VM’s disk', `${512 * MIB}`)
    .action(async (flags: { keep?: boolean; diskSize: string }, command: Command) => {
      const diskBytes = parseSizeBytes(flags.diskSize);
      if (diskBytes === undefined || diskBytes < 16 * MIB)
        throw new DwcpError('INVALID_INPUT', `The disk takes a size from 16MiB, not "${flags.diskSize}"`);
      const stopping = new AbortController();
      onSignalOnce(() => stopping.abort());
      await runDemo({
        keep: flags.keep === true,
        output: outputOf(command),
        signal: stopping.signal,
        diskBytes,
        payloadKeyFile: payloadKeyFileOf(command),
      });
    });
}
