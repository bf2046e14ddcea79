/** `dwcp host invite | list | revoke | forget`: which hosts belong together, by the trust folder of the control plane's machine. */
import { networkInterfaces } from 'node:os';
import type { Command } from 'commander';
import { DwcpError } from '../../model/errors';
import { hostIdSchema } from '../../model/ids';
import { listOf } from '../../model/option-text';
import { PROCESS_OPTIONS } from '../../model/options';
import { invite } from '../../trust/invitation';
import { TrustFolder, trustFolderOf } from '../../trust/trust-folder';
import { type Flags, outputOf, portOf, withGlobals } from '../flags';
import { table } from '../output';
import { addOptions, processOptions } from '../settings';
import { onSignalOnce } from '../signals';

function folderOf(flags: Flags, command: Command): TrustFolder {
  return TrustFolder.make(trustFolderOf(processOptions(withGlobals(flags, command))));
}

/** @throws INVALID_INPUT */
function idOf(text: string): string {
  const parsed = hostIdSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new DwcpError('INVALID_INPUT', parsed.error.issues[0]?.message ?? 'That is no host id');
}

/** By which another machine may reach this one. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((each) => each ?? [])
    .filter(({ internal, family }) => !internal && family === 'IPv4')
    .map(({ address }) => address)
    .slice(0, 8);
}

export function addHostCommands(program: Command): void {
  const host = program.command('host').description('Which hosts belong together: let one in, show them, take one out');

  addOptions(
    host
      .command('invite')
      .description(
        'Print a code, and wait a quarter of an hour for the agent that is started with it: dwcp agent --join CODE',
      )
      .option('--address <address>', 'by which that machine reaches this one; several, separated by commas')
      .option('--port <port>', 'port to wait at; 0 takes a free one', '0'),
    PROCESS_OPTIONS,
    ['trustDir'],
  ).action(async (flags: Flags, command: Command) => {
    const output = outputOf(command);
    const addresses = typeof flags.address === 'string' ? listOf(flags.address) : ownAddresses();
    if (addresses.length === 0)
      throw new DwcpError(
        'CONFIG_INVALID',
        'This machine has no address that another could reach: name one with --address',
      );
    const listen = { address: '0.0.0.0', port: portOf(flags.port) };
    const invitation = await invite(folderOf(flags, command), addresses, listen);
    onSignalOnce(() => invitation.close());
    output.emit(
      { event: 'invitation', code: invitation.code },
      () => `On the other machine:\n\n  dwcp agent --join ${invitation.code}\n`,
    );
    const hostId = await invitation.joined;
    output.emit({ event: 'joined', hostId }, () => `host ${hostId} has joined`);
  });

  addOptions(host.command('list').description('Show the hosts that are known'), PROCESS_OPTIONS, ['trustDir']).action(
    (flags: Flags, command: Command) => {
      const folder = folderOf(flags, command);
      const hosts = folder.hosts().map((hostId) => ({
        hostId,
        keys: folder.host(hostId)?.keys ?? [],
        revoked: folder.isRevoked(hostId),
      }));
      outputOf(command).emit({ event: 'hosts', hosts }, () =>
        table([
          ['HOST', 'KEY', ''],
          ...hosts.map(({ hostId, keys, revoked }) => [
            hostId,
            keys.join(' ') || '(by an authority)',
            revoked ? 'revoked' : '',
          ]),
        ]),
      );
    },
  );

  for (const { name, done, event, description, act } of CHANGES)
    addOptions(host.command(name).description(description).argument('<host>', 'host id'), PROCESS_OPTIONS, [
      'trustDir',
    ]).action((text: string, flags: Flags, command: Command) => {
      const hostId = idOf(text);
      const known = act(folderOf(flags, command), hostId);
      outputOf(command).emit(
        { event, hostId, known },
        () => `host ${hostId} is ${done}${known ? '' : ' (it was not known)'}`,
      );
    });
}

/** What is done about a host that is there, or not: `act` says whether it was. */
const CHANGES = [
  {
    name: 'revoke',
    done: 'revoked',
    event: 'host-revoked',
    description:
      'Believe no key of a host any more: its sessions with agents of this trust folder end, no warrant names it',
    act: (folder: TrustFolder, hostId: string) => folder.revoke(hostId),
  },
  {
    name: 'forget',
    done: 'forgotten',
    event: 'host-forgotten',
    description: 'Know nothing of a host any more: it may come with a new key, or be let in again after it was revoked',
    act: (folder: TrustFolder, hostId: string) => folder.forget(hostId),
  },
];
