/**
 * How a second machine comes to believe a control plane, and to be believed: `dwcp host invite` waits for one agent, whose `--join` has its
 * code. Both prove themselves by the code alone: it names the key of whoever waits, and holds a secret of a quarter of an hour.
 *
 *   code := base64url(JSON {"at": [addresses], "port", "pin": SHA-256 of the waiting side's key, "secret"})
 *   over TLS 1.3    agent -> {"secret", "hostId", "pin"}\n    ->    {"controlKeys": PEM}\n    or {"refused": why}\n
 */
import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { z } from 'zod';
import { addressSchema, portSchema } from '../model/destination';
import { DwcpError, messageOf } from '../model/errors';
import { hostIdSchema } from '../model/ids';
import { pinSchema } from '../model/signed-line';
import { isSameSecret } from '../store/secret-file';
import { keyPinOf, makeHostCertificate, makeHostKey, pinOfCertificate } from './host-certificate';
import type { TrustFolder } from './trust-folder';

const INVITATION_MS = 15 * 60_000;
const EXCHANGE_MS = 10_000;
const MAX_LINE_BYTES = 16_384;
/** Whoever guesses does not guess for long. */
const MAX_WRONG = 5;
const MAX_CONNECTIONS = 16;

const codeSchema = z.strictObject({
  at: z.array(addressSchema).min(1).max(8),
  port: portSchema,
  pin: pinSchema,
  secret: z.string().regex(/^[A-Za-z0-9_-]{22}$/),
});
type Code = z.infer<typeof codeSchema>;
const askSchema = z.strictObject({ secret: z.string().max(64), hostId: hostIdSchema, pin: pinSchema.optional() });
const answerSchema = z.union([
  z.strictObject({ controlKeys: z.string().min(1).max(8000) }),
  z.strictObject({ refused: z.string().max(500) }),
]);

export interface Invitation {
  readonly code: string;
  /** The host that has joined. @throws CANCELLED where none did in time */
  readonly joined: Promise<string>;
  close(): void;
}

/** @param addresses by which the other machine may reach this one, tried in turn */
export async function invite(
  folder: TrustFolder,
  addresses: readonly string[],
  listen: { readonly address: string; readonly port: number },
): Promise<Invitation> {
  const key = await makeHostKey();
  const cert = await makeHostCertificate('invitation', key);
  const secret = randomBytes(16).toString('base64url');
  let wrong = 0;
  let spent = false;
  let done: (hostId: string) => void = () => undefined;
  const server = createServer({ key, cert, minVersion: 'TLSv1.3', handshakeTimeout: EXCHANGE_MS }, (socket) => {
    socket.on('error', () => undefined).setTimeout(EXCHANGE_MS, () => socket.destroy());
    readLine(socket)
      .then((line) => {
        const asked = askSchema.parse(JSON.parse(line));
        if (!isSameSecret(asked.secret, secret)) {
          wrong += 1;
          if (wrong >= MAX_WRONG) server.close();
          throw new Error('the code is wrong');
        }
        if (spent) throw new Error('the code has been used');
        if (folder.isRevoked(asked.hostId))
          throw new Error(`host ${asked.hostId} is revoked: dwcp host forget it first`);
        const known = folder.host(asked.hostId)?.keys ?? [];
        if (known.length > 0 && asked.pin !== undefined && !known.includes(asked.pin))
          throw new Error(`another host ${asked.hostId} is known: dwcp host forget it first`);
        folder.admit(asked.hostId, { keys: asked.pin === undefined ? [] : [asked.pin] });
        spent = true;
        socket.end(`${JSON.stringify({ controlKeys: folder.controlKeysPem() })}\n`);
        done(asked.hostId);
      })
      .catch((error: unknown) => socket.end(`${JSON.stringify({ refused: messageOf(error).slice(0, 500) })}\n`));
  });
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: Error) =>
      reject(
        new DwcpError('CONFIG_INVALID', `Cannot listen on ${listen.address}:${listen.port}: ${cause.message}`, {
          cause,
        }),
      ),
    );
    server.listen({ host: listen.address, port: listen.port }, resolve);
  });
  const joined = new Promise<string>((resolve, reject) => {
    const late = setTimeout(
      () => reject(new DwcpError('CANCELLED', 'No agent has joined within 15 minutes: the code is of no use any more')),
      INVITATION_MS,
    );
    done = (hostId) => {
      clearTimeout(late);
      resolve(hostId);
    };
    server.once('close', () => {
      clearTimeout(late);
      reject(new DwcpError('CANCELLED', 'The invitation has ended'));
    });
  });
  joined.catch(() => undefined).finally(() => server.close());
  const { port } = server.address() as AddressInfo;
  const code: Code = { at: [...addresses], port, pin: pinOfCertificate(cert), secret };
  return {
    code: Buffer.from(JSON.stringify(codeSchema.parse(code))).toString('base64url'),
    joined,
    close: () => server.close(),
  };
}

/**
 * What an invitation lets this host know of the control plane.
 * @param pin of this host's own key @returns PEM of whose warrants are believed
 * @throws NOT_AUTHORISED where it is refused, PEER_UNREACHABLE where nobody waits there any more
 */
export async function join(text: string, hostId: string, pin: string | undefined): Promise<string> {
  const parsed = readCode(text);
  let last: unknown;
  for (const address of parsed.at) {
    try {
      return await ask(parsed, address, JSON.stringify({ secret: parsed.secret, hostId, pin }));
    } catch (error) {
      if (error instanceof DwcpError) throw error;
      last = error;
    }
  }
  throw new DwcpError(
    'PEER_UNREACHABLE',
    `Nobody waits at ${parsed.at.join(', ')} port ${parsed.port}: ${messageOf(last)}`,
    {
      cause: last,
      hint: '`dwcp host invite` waits a quarter of an hour for one agent; run it again, and let the port through',
    },
  );
}

/** @throws INVALID_INPUT */
export function readCode(text: string): Code {
  try {
    return codeSchema.parse(JSON.parse(Buffer.from(text, 'base64url').toString('utf8')));
  } catch (cause) {
    throw new DwcpError('INVALID_INPUT', 'That is no code of `dwcp host invite`', { cause });
  }
}

async function ask({ port, pin }: Code, host: string, line: string): Promise<string> {
  const socket = tlsConnect({ host, port, minVersion: 'TLSv1.3', rejectUnauthorized: false, timeout: EXCHANGE_MS });
  socket.on('timeout', () => socket.destroy(new Error(`no answer within ${EXCHANGE_MS / 1000} s`)));
  try {
    await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    const shown = socket.getPeerX509Certificate();
    // Before the secret is said.
    if (!shown || keyPinOf(shown.publicKey) !== pin)
      throw new DwcpError('PEER_UNTRUSTED', `${host}:${port} is not whoever made this code`);
    socket.write(`${line}\n`);
    const answer = answerSchema.parse(JSON.parse(await readLine(socket)));
    if ('refused' in answer) throw new DwcpError('NOT_AUTHORISED', `The invitation refuses: ${answer.refused}`);
    return answer.controlKeys;
  } finally {
    socket.destroy();
  }
}

function readLine(socket: TLSSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1');
      const end = text.indexOf('\n');
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > MAX_LINE_BYTES) reject(new Error('more than one line'));
    });
    socket.once('close', () => reject(new Error('the connection was closed')));
    socket.once('error', reject);
  });
}
