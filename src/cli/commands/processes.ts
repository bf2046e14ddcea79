/**
 * The long-running commands: the embedded server, the control worker, an agent. Each runs until a signal and then ends
 * in order.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { joinControlPlane } from '../../agent/join';
import { type CodecServer, startCodecServer } from '../../control/codec-server';
import { startEmbeddedServer } from '../../control/embedded-server';
import { findTemporalBinary } from '../../control/temporal-binary';
import { PROCESS_OPTIONS } from '../../model/options';
import { PayloadKeys } from '../../store/payload-keys';
import { createLogger } from '../../telemetry/logger';
import { TrustFolder, trustFolderOf } from '../../trust/trust-folder';
import { payloadKeyFileOf } from '../execute-workflow';
import { type Flags, outputOf, portOf, withGlobals } from '../flags';
import { addOptions, processOptions } from '../settings';
import { onSignalOnce } from '../signals';

const SHARED = ['metricsAddress', 'metricsPort', 'debug', 'trustDir'];
const CONTROL_ONLY = ['pruneInterval', 'controlAuditDir'];
/** The program's own, for each of its commands. */
const GLOBAL = ['payloadKeyFile'];

export function addProcessCommands(program: Command): void {
  addOptions(
    program
      .command('server')
      .description('Run the embedded Temporal server: one process, one SQLite file, with its web UI'),
    PROCESS_OPTIONS,
    ['trustDir'],
  )
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
      TrustFolder.make(trustFolderOf(processOptions(withGlobals(flags, command))));
      // -1 takes none.
      const uiPort = String(flags.uiPort) === '-1' ? -1 : portOf(flags.uiPort);
      const codec = uiPort <= 0 ? undefined : await codecServer(command, uiPort);
      const server = await startEmbeddedServer(
        {
          dbFile: String(flags.dbFile),
          address: flags.address === '0.0.0.0' ? '0.0.0.0' : '127.0.0.1',
          port: portOf(flags.serverPort),
          uiPort,
          ...(codec && { codecEndpoint: codec.url }),
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
      codec?.close();
    });

  addOptions(
    program.command('control').description('Run the control worker: serves the migration workflows'),
    PROCESS_OPTIONS,
    [...SHARED, ...CONTROL_ONLY],
  ).action(async (flags: Flags, command: Command) => {
    const options = processOptions(withGlobals(flags, command));
    // The SDK's worker takes half a second to load, which no other command should take.
    const { startControl } = await import('../../control/control-worker.js');
    const control = await startControl(options, createLogger('dwcp-control', options.debug));
    onSignalOnce(() => control.stop());
    await control.ended;
  });

  const agentOptions = Object.keys(PROCESS_OPTIONS).filter(
    (name) => !CONTROL_ONLY.includes(name) && !GLOBAL.includes(name),
  );
  addOptions(
    program
      .command('agent')
      .description('Run this host’s agent: its data plane and its activities')
      .option('--join <code>', 'at its first start on another machine: what `dwcp host invite` has printed'),
    PROCESS_OPTIONS,
    agentOptions,
  ).action(async (flags: Flags, command: Command) => {
    const options = processOptions(withGlobals(flags, command));
    const log = createLogger('dwcp-agent', options.debug);
    if (typeof flags.join === 'string') {
      const joined = await joinControlPlane(flags.join, options);
      log.info(
        {},
        joined ? 'joined: this host is known to the control plane' : 'joined before: --join is not looked at',
      );
    }
    const { startAgent } = await import('../../agent/agent.js');
    const agent = await startAgent(options, log);
    onSignalOnce(() => agent.stop());
    await agent.ended;
  });
}

/** What the UI of the embedded server decrypts with, where there is a key. */
async function codecServer(command: Command, uiPort: number): Promise<CodecServer | undefined> {
  const keys = PayloadKeys.read(payloadKeyFileOf(command));
  if (keys.ids.length === 0) return undefined;
  const origins = ['127.0.0.1', 'localhost'].map((host) => `http://${host}:${uiPort}`);
  return startCodecServer({ keys, address: '127.0.0.1', port: 0, origins, token: '' });
}
