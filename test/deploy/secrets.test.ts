/** deploy/make-secrets.sh: each secret is readable by the user of the container that reads it, and by nobody else; tokens hold. */
import { spawnSync } from 'node:child_process';
import { createPublicKey, type JsonWebKey, verify } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../helpers/data';

const script = join(__dirname, '..', '..', '..', 'deploy', 'make-secrets.sh');

const read = (folder: string, name: string): string => readFileSync(join(folder, name), 'utf8').trim();

/** Each token is signed by the key that jwks.json names, for who it is named after, for a year. */
function tokensHold(secrets: string): void {
  const { keys } = JSON.parse(read(secrets, 'jwks.json')) as { readonly keys: readonly [JsonWebKey & { kid: string }] };
  const [jwk] = keys;
  expect(keys).toHaveLength(1);
  const key = createPublicKey({ key: jwk as Record<string, unknown>, format: 'jwk' });
  for (const [name, permissions] of [
    ['control', ['dwcp:admin']],
    ['operator', ['dwcp:write', 'temporal-system:read']],
    ['zrh-12', ['dwcp:write']],
  ] as const) {
    const [head = '', body = '', signature = ''] = read(secrets, `token-${name}`).split('.');
    expect(verify('sha256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url'))).toBe(true);
    const [header, claims] = [head, body].map(
      (part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as object,
    );
    expect(header).toEqual({ alg: 'RS256', typ: 'JWT', kid: jwk.kid });
    const nowSeconds = Date.now() / 1000;
    expect(claims).toMatchObject({ sub: name, permissions });
    const { exp } = claims as { readonly exp: number };
    expect((exp - nowSeconds) / 86_400).toBeGreaterThan(364);
    expect((exp - nowSeconds) / 86_400).toBeLessThanOrEqual(365);
  }
}

test('makes tokens anew when the key is new, and keeps them while it is not', () => {
  const folder = join(temporaryFolder(), 'deploy');
  mkdirSync(folder);
  copyFileSync(script, join(folder, 'make-secrets.sh'));
  const run = (): string[] => {
    spawnSync('/bin/sh', [join(folder, 'make-secrets.sh'), 'zrh-12']);
    tokensHold(join(folder, 'secrets'));
    return [read(join(folder, 'secrets'), 'token-zrh-12'), read(join(folder, 'secrets'), 'client-zrh-12.pem')];
  };
  const [token, certificate] = run();
  expect(run()).toEqual([token, certificate]);
  rmSync(join(folder, 'secrets', 'jwt.key'));
  const [later] = run();
  expect(later).not.toBe(token);
});

test('keeps all others out, also where it is run again and files are there', () => {
  const folder = join(temporaryFolder(), 'deploy');
  mkdirSync(folder);
  copyFileSync(script, join(folder, 'make-secrets.sh'));
  const root = process.getuid?.() === 0;
  for (const agents of [[], ['agent-a', 'zrh-12']]) {
    const { status, stderr } = spawnSync('/bin/sh', [join(folder, 'make-secrets.sh'), ...agents], { encoding: 'utf8' });
    expect([status, stderr]).toEqual(root ? [0, ''] : [1, expect.stringContaining('as root')]);
  }
  const secrets = join(folder, 'secrets');
  expect(statSync(secrets).mode & 0o777).toBe(0o700);
  expect(readdirSync(secrets).filter((name) => /\.(csr|ext)$/.test(name))).toEqual([]);
  tokensHold(secrets);
  const found = readdirSync(secrets).map((name) => {
    const { mode, uid } = statSync(join(secrets, name));
    return { name, mode, uid };
  });
  expect(found.filter(({ mode }) => (mode & 0o077) !== 0).map(({ name }) => name)).toEqual([]);
  if (!root) return;
  const ownerOf = Object.fromEntries(found.map(({ name, uid }) => [name, uid]));
  expect(ownerOf).toMatchObject({
    postgres_password: 1000,
    'agent-a.key': 10_001,
    'zrh-12.pem': 10_001,
    'agents-ca.key': 0,
    'clients-ca.key': 0,
    'temporal-ca.key': 0,
    'jwt.key': 0,
    'temporal.key': 1000,
    'client-control.key': 10_001,
    'client-zrh-12.key': 10_001,
    'token-zrh-12': 10_001,
    'token-operator': 10_001,
    payload_keys: 10_001,
  });
});
