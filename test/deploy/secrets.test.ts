/** deploy/make-secrets.sh: each secret is readable by the user of the container that reads it, and by nobody else. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../helpers/data';

const script = join(__dirname, '..', '..', '..', 'deploy', 'make-secrets.sh');

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
  });
});
