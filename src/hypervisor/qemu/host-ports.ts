/**
 * Ports of this host: whether one is free, and who has it. Which of them its configuration names is port-ranges.ts's, what they are taken for
 * console-ports.ts's.
 */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { promisify } from 'node:util';
import { errnoOf } from '../../model/errors';
import type { HostPort } from './port-ranges';

const run = promisify(execFile);
const LOOK_TIMEOUT_MS = 3_000;

/** @returns why it cannot be opened here; undefined where it can: it has been, and was closed again */
export async function whyTaken({ protocol, address, port }: HostPort): Promise<'taken' | 'no address' | undefined> {
  try {
    await (protocol === 'tcp' ? tryTcp(address, port) : tryUdp(address, port));
    return undefined;
  } catch (error) {
    const errno = errnoOf(error);
    // QEMU may run as somebody who may.
    if (errno === 'EACCES') return undefined;
    return errno === 'EADDRNOTAVAIL' ? 'no address' : 'taken';
  }
}

/** Who has it, for a refusal: ` by process 12 (sshd)`; nothing where that cannot be seen. */
export async function takenBy({ protocol, port }: HostPort): Promise<string> {
  try {
    const kind = protocol === 'tcp' ? '-Htlnp' : '-Hulnp';
    const { stdout } = await run('ss', [kind, `sport = :${port}`], { timeout: LOOK_TIMEOUT_MS });
    const [, name, pid] = /users:\(\("([^"]*)",pid=(\d+),/.exec(stdout) ?? [];
    return name === undefined ? '' : ` by process ${pid} (${name})`;
  } catch {
    return '';
  }
}

async function tryTcp(host: string, port: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen({ host, port, exclusive: true }, resolve),
  );
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

async function tryUdp(address: string, port: number): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  await new Promise<void>((resolve, reject) =>
    socket.once('error', reject).bind({ address, port, exclusive: true }, resolve),
  );
  await new Promise<void>((resolve) => socket.close(() => resolve()));
}
