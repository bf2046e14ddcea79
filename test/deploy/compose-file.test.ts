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
  readonly networks?: readonly string[];
  readonly secrets?: readonly (string | { readonly source: string })[];
}

interface ComposeFile {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: object;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>;
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

/** What `--env-file deploy/images.env` names. */
const images = Object.fromEntries(
  readFileSync(join(root, 'deploy', 'images.env'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split('=') as [string, string]),
);

test('names every image by the file that pins them, and does not start without that', () => {
  const asked = [...text.matchAll(/\$\{(\w+_IMAGE):\?/g)].map(([, name]) => name);
  expect([...new Set(asked)].sort()).toEqual(Object.keys(images).sort());
  for (const image of Object.values(images)) expect(image).toMatch(/^[a-z/-]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?$/);
  for (const [, { image }] of services)
    expect(image).toMatch(/^(dwcp:\$\{DWCP_RELEASE:-latest\}|\$\{\w+_IMAGE:\?.*\})$/);
  expect(images.TEMPORAL_SERVER_IMAGE).toMatch(/^temporalio\/server:1\.31\.2/);
  const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');
  for (const name of ['NODE_BUILD_IMAGE', 'NODE_IMAGE']) expect(dockerfile).toContain(`FROM \${${name}}`);
});

test('keeps the database to the server, and agents to the front end and one another', () => {
  const reached = (name: string): string[] => {
    const networks = file.services[name]?.networks ?? [];
    return services
      .filter(([other, service]) => other !== name && service.networks?.some((each) => networks.includes(each)))
      .map(([other]) => other)
      .sort();
  };
  expect(reached('postgresql')).toEqual(['temporal', 'temporal-schema']);
  expect(reached('token-keys')).toEqual(['temporal']);
  expect(reached('agent-a')).toEqual(['agent-b', 'temporal']);
  expect(reached('agent-b')).toEqual(['agent-a', 'temporal']);
  expect(file.services['agent-a']?.environment?.DWCP_METRICS_ADDRESS).toBe('127.0.0.1');
  for (const name of ['database', 'token-keys', 'agents']) expect(file.networks[name]?.internal).toBe(true);
});

test('has every client of the front end show a certificate and a token, and no two the same', () => {
  const clients = services.filter(([, { environment }]) => environment?.TEMPORAL_ADDRESS !== undefined);
  expect(clients.map(([name]) => name)).toEqual(['temporal-namespace', 'temporal-ui', 'control', 'agent-a', 'agent-b']);
  const shown = clients.map(([, { secrets = [] }]) =>
    secrets
      .map((each) => (typeof each === 'string' ? each : each.source))
      .filter((name) => /cert|key$|token/.test(name)),
  );
  const all = shown.flat();
  expect(new Set(all).size).toBe(all.length);
  for (const [name, { environment = {} }] of clients)
    expect([name, environment.TEMPORAL_TLS_SERVER_NAME]).toEqual([name, 'temporal']);
  const { environment } = file.services.temporal!;
  expect(environment).toMatchObject({
    TEMPORAL_TLS_REQUIRE_CLIENT_AUTH: 'true',
    TEMPORAL_AUTH_AUTHORIZER: 'default',
    TEMPORAL_AUTH_CLAIM_MAPPER: 'default',
    INTERNAL_FRONTEND_HTTP_PORT: '0',
  });
  expect(environment?.TEMPORAL_TLS_CLIENT1_CA_CERT).not.toBe(environment?.TEMPORAL_TLS_SERVER_CA_CERT);
});

test('restarts what runs on, and one-shots only on failure', () => {
  for (const [name, { restart }] of services)
    expect([name, restart]).toEqual([
      name,
      ['temporal-schema', 'temporal-namespace'].includes(name) ? 'on-failure:10' : 'unless-stopped',
    ]);
});

test('watches the health of what others wait for, and of agents and control worker', () => {
  for (const name of ['postgresql', 'token-keys', 'temporal', 'control', 'agent-a', 'agent-b'])
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
      if (/PASSWORD|PWD|SECRET|TOKEN|KEY(?!_(SOURCE|REFRESH))/.test(variable))
        expect([name, variable, value]).toEqual([name, variable, expect.stringMatching(/^\/run\/secrets\//)]);
    }
  }
});
