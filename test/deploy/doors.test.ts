/** The small servers of deploy/ and the tool that pins images: who is let through, and as whom. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { freePort } from '../../src/control/embedded-server';
import { temporaryFolder } from '../helpers/data';

const root = join(__dirname, '..', '..', '..');
const running: ChildProcess[] = [];
const servers: Server[] = [];

afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
  for (const server of servers) server.close();
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

function ask(port: number, path: string, method = 'GET', headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, method, headers }, (response) => {
      let text = '';
      response.on('data', (part: Buffer) => (text += part.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

async function start(script: string, port: number, env: Record<string, string>): Promise<void> {
  running.push(
    spawn(process.execPath, [join(root, 'deploy', script)], { env: { ...process.env, ...env }, stdio: 'inherit' }),
  );
  for (let tries = 0; tries < 100; tries += 1) {
    const up = await ask(port, '/').then(
      () => true,
      () => false,
    );
    if (up) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${script} does not answer`);
}

/** Tells what reaches it. */
async function upstream(name: string): Promise<string> {
  const server = createServer(({ url, method, headers }, response) =>
    response.end(`${name} ${method ?? ''} ${url ?? ''} ${headers.authorization ?? ''}`),
  );
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('the UI’s door takes the password for the operator’s token, and no word from other pages', async () => {
  const folder = temporaryFolder();
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), `${content}\n`, { mode: 0o600 });
    return join(folder, name);
  };
  const port = await freePort();
  await start('ui-door.mjs', port, {
    UI_DOOR_PORT: String(port),
    UI_DOOR_ADDRESS: '127.0.0.1',
    UI_ADDRESS: await upstream('ui'),
    CODEC_ADDRESS: await upstream('codec'),
    UI_PASSWORD_FILE: file('password', 'a password of a length'),
    UI_TOKEN_FILE: file('token', 'the.operators.token'),
    CODEC_TOKEN_FILE: file('codec', 'the-codecs-own-token'),
  });
  const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
  const known = { authorization: basic('operator:a password of a length') };
  expect((await ask(port, '/')).status).toBe(401);
  for (const authorization of [basic('operator:another'), basic('root:a password of a length'), 'Bearer x'])
    expect((await ask(port, '/', 'GET', { authorization })).status).toBe(401);
  expect((await ask(port, '/namespaces?x=1', 'GET', known)).text).toBe(
    'ui GET /namespaces?x=1 Bearer the.operators.token',
  );
  const here = { origin: `http://127.0.0.1:${port}` };
  expect((await ask(port, '/api/v1/x', 'POST', { ...known, ...here })).text).toBe(
    'ui POST /api/v1/x Bearer the.operators.token',
  );
  expect((await ask(port, '/codec/decode', 'POST', { ...known, ...here })).text).toBe(
    'codec POST /decode Bearer the-codecs-own-token',
  );
  for (const from of [
    { origin: 'http://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { origin: `http://127.0.0.1:${port + 1}` },
  ])
    expect((await ask(port, '/api/v1/x', 'POST', { ...known, ...from })).status).toBe(403);
});

test('the tokens’ keys are served as they are public, and a private one not at all', async () => {
  const folder = temporaryFolder();
  const path = join(folder, 'jwks.json');
  const port = await freePort();
  const env = { JWKS_FILE: path, JWKS_PORT: String(port), JWKS_ADDRESS: '127.0.0.1' };
  writeFileSync(path, JSON.stringify({ keys: [{ kty: 'RSA', kid: '1', n: 'AQ', e: 'AQAB', d: 'AQ' }] }));
  const refused = spawnSync(process.execPath, [join(root, 'deploy', 'serve-jwks.mjs')], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining('more than public') as string]);
  writeFileSync(path, JSON.stringify({ keys: [{ kty: 'RSA', kid: '1', n: 'AQ', e: 'AQAB' }] }));
  await start('serve-jwks.mjs', port, env);
  expect(JSON.parse((await ask(port, '/jwks.json')).text)).toEqual({
    keys: [{ kty: 'RSA', kid: '1', n: 'AQ', e: 'AQAB' }],
  });
  expect((await ask(port, '/')).status).toBe(404);
  expect((await ask(port, '/jwks.json', 'POST')).status).toBe(404);
});

test('tools/pin-images.mjs writes what Docker says, and sees what has changed', () => {
  const folder = temporaryFolder();
  const images = join(folder, 'images.env');
  const programs = join(folder, 'bin');
  mkdirSync(programs);
  const docker = (digest: string): void => {
    writeFileSync(join(programs, 'docker'), `#!/bin/sh\n[ "$4" != gone/x:1 ] && echo ${digest}\n`);
    chmodSync(join(programs, 'docker'), 0o755);
  };
  const run = (...args: string[]): { status: number | null; stdout: string } =>
    spawnSync(process.execPath, [join(root, 'tools', 'pin-images.mjs'), ...args], {
      env: { ...process.env, PATH: `${programs}:${process.env.PATH ?? ''}`, DWCP_IMAGES_FILE: images },
      encoding: 'utf8',
    });
  const [first, later] = ['a', 'b'].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string];
  writeFileSync(images, '# these\nPOSTGRES_IMAGE=postgres:16\nNODE_IMAGE=node:24-bookworm-slim\n');
  docker(first);
  expect(run('--check').status).toBe(1);
  expect(run().status).toBe(0);
  const pinned = `# these\nPOSTGRES_IMAGE=postgres:16@${first}\nNODE_IMAGE=node:24-bookworm-slim@${first}\n`;
  expect(readFileSync(images, 'utf8')).toBe(pinned);
  expect(run('--check')).toMatchObject({ status: 0, stdout: '' });
  docker(later);
  expect(run('--check')).toMatchObject({ status: 1, stdout: expect.stringContaining(later) as string });
  expect(readFileSync(images, 'utf8')).toBe(pinned);
  docker('no digest');
  expect(run().status).toBe(1);
  expect(readFileSync(images, 'utf8')).toBe(pinned);
});
