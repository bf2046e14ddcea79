/**
 * `dwcp codec-server`: shows what lies encrypted in Temporal to the operator's Temporal UI and CLI.
 */
import type { Command } from 'commander';
import { startCodecServer } from '../../control/codec-server';
import { DwcpError } from '../../model/errors';
import { listOf } from '../../model/option-text';
import { PayloadKeys } from '../../store/payload-keys';
import { readSecretFile } from '../../store/secret-file';
import { payloadKeyFileOf } from '../execute-workflow';
import { type Flags, outputOf, portOf } from '../flags';
import { onSignalOnce } from '../signals';

/** Of `dwcp server`, and of docker-compose.yml. */
const DEFAULT_ORIGINS = ['8233', '8080'].flatMap((port) => [`http://127.0.0.1:${port}`, `http://localhost:${port}`]);

export function addCodecServerCommand(program: Command): void {
  program
    .command('codec-server')
    .description('Decrypt what lies in Temporal for its UI: with --payload-key-file, on loopback or by a token')
    .option('--address <address>', 'address to listen on; another than loopback needs a token', '127.0.0.1')
    .option('--codec-port <port>', 'port to listen on', '8234')
    .option('--ui-origin <origins>', 'origins of the UI’s pages, separated by commas', DEFAULT_ORIGINS.join(','))
    .option('--token-file <path>', 'file of the token that callers have to show as their bearer')
    .action(async (flags: Flags, command: Command) => {
      const server = await startCodecServer({
        keys: PayloadKeys.read(payloadKeyFileOf(command)),
        address: String(flags.address),
        port: portOf(flags.codecPort),
        origins: listOf(String(flags.uiOrigin)),
        token: typeof flags.tokenFile === 'string' ? tokenIn(flags.tokenFile) : '',
      });
      onSignalOnce(() => server.close());
      outputOf(command).emit(
        { event: 'codec-server', url: server.url },
        () => `Codec server at ${server.url}: name it in the Temporal UI (the glasses at the top), or --codec-endpoint`,
      );
      await server.ended;
    });
}

function tokenIn(path: string): string {
  const token = readSecretFile('--token-file', path).toString('utf8').trim();
  if (token.length < 16) throw new DwcpError('CONFIG_INVALID', `--token-file ${path} holds less than 16 characters`);
  return token;
}
