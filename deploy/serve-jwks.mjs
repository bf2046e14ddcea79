/**
 * Serves the public keys that Temporal checks tokens with: it takes them by HTTP alone. On a network that holds nothing but this
 * and the server (docker-compose.yml).
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const port = Number(process.env.JWKS_PORT ?? 8088);
if (process.argv.includes('--check')) {
  const answer = await fetch(`http://127.0.0.1:${port}/jwks.json`).catch(() => undefined);
  process.exitCode = answer?.ok ? 0 : 1;
} else {
  const keys = (JSON.parse(readFileSync(process.env.JWKS_FILE, 'utf8')).keys ?? []).map((key) => {
    if (key.d !== undefined || key.kty !== 'RSA') throw new Error('JWKS_FILE holds more than public RSA keys');
    return key;
  });
  const body = JSON.stringify({ keys });
  const server = createServer((request, response) => {
    const found = request.method === 'GET' && request.url === '/jwks.json';
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
    response.end(found ? body : '{}');
  });
  server.listen(port, process.env.JWKS_ADDRESS ?? '0.0.0.0');
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit());
}
