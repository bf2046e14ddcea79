/**
 * The codec server: has what lies encrypted in Temporal shown to an operator's browser, by the protocol of Temporal's UI and CLI
 * (POST /decode and /encode of JSON). Who reaches it reads everything, so it answers on loopback, or to who has its token, and of
 * web pages only to those of the origins that it was given.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Payload } from '@temporalio/common';
import { z } from 'zod';
import { DwcpError, messageOf } from '../model/errors';
import type { PayloadKeys } from '../store/payload-keys';
import { isSameSecret } from '../store/secret-file';
import { isLoopback } from '../system/loopback';
import { EncryptionCodec } from './payload-codec';

const MAX_BODY_BYTES = 16 * 1024 * 1024;
const MAX_CONNECTIONS = 64;
const REQUEST_TIMEOUT_MS = 10_000;

export interface CodecServerOptions {
  readonly keys: PayloadKeys;
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Of the pages that may ask: `http://127.0.0.1:8233`. */
  readonly origins: readonly string[];
  /** What callers have to show as their bearer; empty: nothing, on loopback alone. */
  readonly token: string;
}

export interface CodecServer {
  readonly url: string;
  /** Resolves when it has been closed. */
  readonly ended: Promise<void>;
  close(): void;
}

const base64 = z.base64().transform((text) => new Uint8Array(Buffer.from(text, 'base64')));
const bodySchema = z.object({
  payloads: z.array(
    z.object({ metadata: z.record(z.string(), base64).default({}), data: base64.default(new Uint8Array()) }),
  ),
});

/** @throws CONFIG_INVALID where it would read to anybody, or has no key or an address that is taken */
export async function startCodecServer(options: CodecServerOptions): Promise<CodecServer> {
  const { keys, address, port, token } = options;
  if (keys.ids.length === 0)
    throw new DwcpError('CONFIG_INVALID', 'A codec server without payloadKeyFile has nothing to decrypt with');
  if (token === '' && !isLoopback(address))
    throw new DwcpError(
      'CONFIG_INVALID',
      `A codec server on ${address} decrypts for all who reach it: give it a token file, or 127.0.0.1`,
    );
  const codec = new EncryptionCodec(keys);
  const server = createServer((request, response) => void answer(request, response, codec, options));
  server.maxConnections = MAX_CONNECTIONS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, address, resolve);
  }).catch((error: unknown) => {
    throw new DwcpError('CONFIG_INVALID', `The codec server cannot listen: ${messageOf(error)}`, { cause: error });
  });
  const ended = new Promise<void>((resolve) => server.once('close', resolve));
  const shown = address.includes(':') ? `[${address}]` : address;
  return {
    url: `http://${shown}:${(server.address() as AddressInfo).port}`,
    ended,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface Answer {
  readonly status: number;
  readonly body?: object;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  codec: EncryptionCodec,
  options: CodecServerOptions,
): Promise<void> {
  const { status, body } = await answerTo(request, response, codec, options).catch(refusal);
  response.writeHead(status, body && { 'content-type': 'application/json' });
  response.end(body && JSON.stringify(body));
}

function refusal(error: unknown): Answer {
  if (error instanceof Refusal) return { status: error.status, body: { message: error.message } };
  if (error instanceof DwcpError) return { status: 422, body: error.report() };
  return { status: 400, body: { message: messageOf(error).slice(0, 500) } };
}

async function answerTo(
  request: IncomingMessage,
  response: ServerResponse,
  codec: EncryptionCodec,
  options: CodecServerOptions,
): Promise<Answer> {
  allowOrigin(request, response, options.origins);
  if (request.method === 'OPTIONS') return { status: 204 };
  if (!isBearer(request.headers.authorization, options.token)) throw new Refusal(401, 'its token is asked for');
  // Under any path before it, as one that stands behind another server has.
  const what = /\/(decode|encode)$/.exec((request.url ?? '').split('?')[0] ?? '')?.[1];
  if (request.method !== 'POST' || what === undefined) throw new Refusal(404, 'POST /decode or /encode');
  const { payloads } = bodySchema.parse(JSON.parse(await bodyOf(request)));
  const done = what === 'decode' ? await codec.decode(payloads) : await codec.encode(payloads);
  return { status: 200, body: { payloads: done.map(toJson) } };
}

/** A page of another origin is refused, not only kept from reading the answer. */
function allowOrigin({ headers }: IncomingMessage, response: ServerResponse, origins: readonly string[]): void {
  const { origin } = headers;
  if (origin === undefined) return;
  if (!origins.includes(origin)) throw new Refusal(403, `pages of ${origin.slice(0, 200)} may not ask`);
  response.setHeader('access-control-allow-origin', origin);
  response.setHeader('access-control-allow-credentials', 'true');
  response.setHeader('access-control-allow-methods', 'POST');
  response.setHeader('access-control-allow-headers', 'authorization, content-type, x-namespace');
  response.setHeader('vary', 'origin');
  if (headers['access-control-request-private-network'] === 'true')
    response.setHeader('access-control-allow-private-network', 'true');
}

function isBearer(header: string | undefined, token: string): boolean {
  if (token === '') return true;
  return isSameSecret(header ?? '', `Bearer ${token}`);
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of request) {
    parts.push(part as Buffer);
    sizeBytes += (part as Buffer).length;
    if (sizeBytes > MAX_BODY_BYTES) throw new Refusal(413, `more than ${MAX_BODY_BYTES} bytes`);
  }
  return Buffer.concat(parts).toString('utf8');
}

function toJson({ metadata, data }: Payload): object {
  const text = (bytes: Uint8Array | null | undefined): string => Buffer.from(bytes ?? []).toString('base64');
  return {
    metadata: Object.fromEntries(Object.entries(metadata ?? {}).map(([key, value]) => [key, text(value)])),
    data: text(data),
  };
}
