/** docker-compose.yml is what Compose accepts, and what a deployment needs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Ajv from 'ajv/dist/2020';
import { parse } from 'yaml';

const root = join(__dirname, '..', '..', '..');

interface Service {
  readonly image?: string;
  readonly restart?: string;
  readonly ports?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes?: readonly string[];
  readonly healthcheck?: object;
}

interface ComposeFile {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: object;
  readonly secrets: Readonly<Record<string, { readonly file?: string }>>;
}

const text = readFileSync(join(root, 'docker-compose.yml'), 'utf8');
const file = parse(text, { merge: true }) as ComposeFile;
const services = Object.entries(file.services);

function valid(value: unknown): boolean {
  const schema = JSON.parse(readFileSync(join(root, 'test', 'fixtures', 'compose-spec.json'), 'utf8')) as object;
  const check = new Ajv({ strict: false, formats: { duration: true, subnet_ip_address: true } }).compile(schema);
  const ok = check(value);
  if (!ok) process.stderr.write(`${JSON.stringify(check.errors?.slice(0, 3))}\n`);
  return ok;
}

test('is valid by the Compose schema, which refuses a misspelt key', () => {
  expect(valid(file)).toBe(true);
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = () => true;
  expect(valid({ ...file, services: { ...file.services, agent: { imagee: 'dwcp' } } })).toBe(false);
  process.stderr.write = write;
});

test('names every image by version', () => {
  for (const [, { image }] of services) expect(image).toMatch(/^(dwcp:\$\{DWCP_RELEASE:-latest\}|[a-z/-]+:\d[\d.]*)$/);
  expect(file.services.temporal?.image).toBe('temporalio/server:1.31.2');
  expect(file.services['temporal-ui']?.image).toBe('temporalio/ui:2.53.3');
  expect(file.services.postgresql?.image).toBe('postgres:16');
});

test('restarts what runs on, and one-shots only on failure', () => {
  for (const [name, { restart }] of services)
    expect([name, restart]).toEqual([
      name,
      ['temporal-schema', 'temporal-namespace'].includes(name) ? 'on-failure:10' : 'unless-stopped',
    ]);
});

test('watches the health of what others wait for, and of agents and control worker', () => {
  for (const name of ['postgresql', 'temporal', 'control', 'agent-a', 'agent-b'])
    expect([name, file.services[name]?.healthcheck]).toEqual([name, expect.any(Object)]);
});

test('publishes nothing of the database, and nothing beyond this machine', () => {
  expect(file.services.postgresql?.ports).toBeUndefined();
  const published = services.flatMap(([, { ports = [] }]) => ports);
  expect(published).not.toEqual([]);
  for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:/);
});

test('keeps the database on a named volume', () => {
  expect(file.services.postgresql?.volumes).toEqual(['postgresql-data:/var/lib/postgresql/data']);
  expect(file.volumes).toHaveProperty('postgresql-data');
});

test('takes secrets from files and has none in the environment', () => {
  const secrets = Object.values(file.secrets);
  expect(secrets).not.toEqual([]);
  for (const secret of secrets) expect(secret.file).toMatch(/^\.\/deploy\/secrets\//);
  for (const [name, { environment = {} }] of services) {
    for (const [variable, value] of Object.entries(environment)) {
      if (/PASSWORD|PWD|SECRET|KEY/.test(variable))
        expect([name, variable, value]).toEqual([name, variable, expect.stringMatching(/^\/run\/secrets\//)]);
    }
  }
});
