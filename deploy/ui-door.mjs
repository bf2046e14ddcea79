/**
 * The door of Temporal's UI: asks the operator for the password, and shows Temporal's server the operator's token in its place, which
 * the UI has no setting for. Behind it lie the UI and, as /codec, the codec server. For more than one operator give the UI an
 * OpenID provider instead (docs/runbook.md).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request as ask, createServer } from 'node:http';

const { UI_PASSWORD_FILE, UI_TOKEN_FILE, UI_ADDRESS, CODEC_TOKEN_FILE, CODEC_ADDRESS } = process.env;
const secretIn = (path) => {
  const secret = readFileSync(path, 'utf8').trim();
  if (secret.length < 16) throw new Error(`${path} is too short for a secret`);
  return secret;
};
const digest = (text) => createHash('sha256').update(text).digest();
const basic = digest(`Basic ${Buffer.from(`operator:${secretIn(UI_PASSWORD_FILE)}`).toString('base64')}`);
const UI = { address: UI_ADDRESS, authorization: `Bearer ${secretIn(UI_TOKEN_FILE)}` };
const CODEC = { address: CODEC_ADDRESS, authorization: `Bearer ${secretIn(CODEC_TOKEN_FILE)}` };

/** A browser shows the password to this door whoever's page has it ask: what changes anything comes from a page of the UI alone. */
function isFromElsewhere({ method, headers: { origin, host, 'sec-fetch-site': site } }) {
  if (['GET', 'HEAD'].includes(method)) return false;
  if (origin !== undefined) return !/^https?:\/\//.test(origin) || origin.replace(/^https?:\/\//, '') !== host;
  return site !== undefined && site !== 'same-origin';
}

function refuse(response, status, headers = {}) {
  response.writeHead(status, { 'content-type': 'text/plain', ...headers });
  response.end(`${status}\n`);
}

const server = createServer((incoming, response) => {
  if (!timingSafeEqual(digest(incoming.headers.authorization ?? ''), basic))
    return refuse(response, 401, { 'www-authenticate': 'Basic realm="Temporal", charset="UTF-8"' });
  if (isFromElsewhere(incoming)) return refuse(response, 403);
  const isCodec = incoming.url.startsWith('/codec/');
  const { address, authorization } = isCodec ? CODEC : UI;
  const [hostname, port] = address.split(':');
  const path = isCodec ? incoming.url.slice('/codec'.length) : incoming.url;
  const headers = { ...incoming.headers, authorization, connection: 'close' };
  const outgoing = ask({ hostname, port, path, method: incoming.method, headers, timeout: 60_000 }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  outgoing.on('timeout', () => outgoing.destroy());
  outgoing.on('error', () => (response.headersSent ? response.destroy() : refuse(response, 502)));
  response.on('close', () => outgoing.destroy());
  incoming.pipe(outgoing);
});
server.maxConnections = 64;
server.listen(Number(process.env.UI_DOOR_PORT ?? 8080), process.env.UI_DOOR_ADDRESS ?? '0.0.0.0');
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit());
