/**
 * The long-running commands: the embedded server, the control worker, an agent. Each runs until a signal and then ends
 * in order.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { startAgent } from '../../agent/agent';
import { startControl } from '../../control/control-worker';
import { startEmbeddedServer } from '../../control/embedded-server';
import { findTemporalBinary } from '../../control/temporal-binary';
import { DwcpError } from '../../model/errors';
import { PROCESS_OPTIONS } from '../../model/options';
import { createLogger } from '../../telemetry/logger';
import { type Flags, outputOf, withGlobals } from '../flags';
import { addOptions, processOptions } from '../settings';
import { onSignalOnce } from '../signals';

const SHARED = ['metricsAddress', 'metricsPort', 'debug'];
const CONTROL_ONLY = ['pruneInterval'];

export function addProcessCommands(program: Command): void {
  program
    .command('server')
    .description('Run the embedded Temporal server: one process, one SQLite file, with its web UI')
    .option('--db-file <path>', 'SQLite file', join(homedir(), '.local', 'share', 'dwcp', 'temporal.sqlite'))
    .addOption(
      new Option('--address <address>', 'address to listen on: this host alone, or all')
        .choices(['127.0.0.1', '0.0.0.0'])
        .default('127.0.0.1'),
    )
    .option('--server-port <port>', 'gRPC port', '7233')
    .option('--ui-port <port>', 'port of the web UI; -1 for none', '8233')
    .option('--locate', 'only find, download or build the server, and print where it is')
    .action(async (flags: Flags, command: Command) => {
      const output = outputOf(command);
      if (flags.locate === true) {
        if (process.env.TEMPORAL_ADDRESS) {
          output.emit(
            { event: 'server', how: 'TEMPORAL_ADDRESS', address: process.env.TEMPORAL_ADDRESS },
            () => `Temporal server: ${process.env.TEMPORAL_ADDRESS ?? ''} (TEMPORAL_ADDRESS)`,
          );
          return;
        }
        const found = await findTemporalBinary((line) => output.say(line));
        output.emit({ event: 'server', ...found }, () => `Temporal server: ${found.path} (${found.how})`);
        return;
      }
      const port = (text: unknown): number => {
        const value = Number(text);
        if (!Number.isInteger(value) || value < -1 || value > 65_535)
          throw new DwcpError('CONFIG_INVALID', `A port is a number from 0 to 65535, not "${String(text)}"`);
        return value;
      };
      const server = await startEmbeddedServer(
        {
          dbFile: String(flags.dbFile),
          address: flags.address === '0.0.0.0' ? '0.0.0.0' : '127.0.0.1',
          port: port(flags.serverPort),
          uiPort: port(flags.uiPort),
        },
        (line) => output.say(line),
      );
      onSignalOnce(() => void server.stop());
      output.emit(
        { event: 'server', address: server.address, ui: server.uiAddress },
        () =>
          `Temporal server at ${server.address}${server.uiAddress ? `, its UI at ${server.uiAddress}` : ''}. Set ` +
          `TEMPORAL_ADDRESS=${server.address} for the other commands.`,
      );
      await server.ended;
    });

  addOptions(
    program.command('control').description('Run the control worker: serves the migration workflows'),
    PROCESS_OPTIONS,
    [...SHARED, ...CONTROL_ONLY],
  ).action(async (flags: Flags, command: Command) => {
    const options = processOptions(withGlobals(flags, command));
    const control = await startControl(options, createLogger('dwcp-control', options.debug));
    onSignalOnce(() => control.stop());
    await control.ended;
  });

  const agentOptions = Object.keys(PROCESS_OPTIONS).filter((name) => !CONTROL_ONLY.includes(name));
  addOptions(
    program.command('agent').description('Run this host’s agent: its data plane and its activities'),
    PROCESS_OPTIONS,
    agentOptions,
  ).action(async (flags: Flags, command: Command) => {
    const options = processOptions(withGlobals(flags, command));
    const agent = await startAgent(options, createLogger('dwcp-agent', options.debug));
    onSignalOnce(() => agent.stop());
    await agent.ended;
  });
}
