/** Which operator may what: the policy file, as the issuer follows it, and what is written down of its decisions. */
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openDecisions } from '../../src/control/decisions';
import { createIssuer, signRequest } from '../../src/control/issuer';
import type { ActivityInput } from '../../src/model/activity-inputs';
import { type AuditLine, readAudit } from '../../src/store/audit-reader';
import { parsePolicy } from '../../src/trust/policy';
import { signText } from '../../src/trust/signed-text';
import { TrustFolder } from '../../src/trust/trust-folder';
import { GOOD } from '../helpers/activity-inputs';
import { temporaryFolder } from '../helpers/data';

const IDENTITY = { migrationId: 'm1', vmId: 'vm', sourceHost: 'site-a-1', destinationHost: 'site-b-7' };
const { generation, images, guest, stoppedGuest, vmType } =
  GOOD.prepareDestination as ActivityInput<'prepareDestination'>;
const preparedFor = (tenant: string | undefined) =>
  ({ generation, images, guest, stoppedGuest, vmType, tenant }) as ActivityInput<'authorise'>['prepared'];

const POLICY = `
roles:
  movers:
    may: [plan, move]
    tenants: [acme, "dev-*"]
    between: ["site-a-* -> site-b-*", "site-b-* -> site-a-*"]
  chiefs:
    may: [plan, move, override]
operators:
  local: [movers]
  carla: [movers, chiefs]
`;

let trust: TrustFolder;
let keys: Record<string, ReturnType<typeof generateKeyPairSync>['privateKey'] | undefined>;
beforeEach(() => {
  trust = TrustFolder.make(join(temporaryFolder(), 'trust'));
  keys = { local: trust.operatorKey() };
  for (const name of ['carla', 'dora']) {
    const pair = generateKeyPairSync('ed25519');
    keys[name] = pair.privateKey;
    writeFileSync(join(trust.path, 'operators', `${name}.pub`), pair.publicKey.export({ type: 'spki', format: 'pem' }));
  }
});
const policy = (text: string): void => writeFileSync(join(trust.path, 'policy.yaml'), text, { mode: 0o600 });

type Wanted = ActivityInput<'authorise'>;
type Mode = 'migrate' | 'warm' | 'plan' | 'accept-two-copies';
function requestOf(name: string, mode: Mode, of: object = IDENTITY): string {
  const key = keys[name];
  return key ? signText('request', { mode, ...of, issuedAtMs: Date.now() }, key) : '';
}

const issue = (wanted: object) => createIssuer(trust)(wanted as Wanted);
async function verdict(name: string, more: Partial<Wanted> = {}): Promise<string> {
  const { mode = 'migrate', prepared, twoCopies, ...of } = more;
  const identity = { ...IDENTITY, ...of };
  try {
    const { warrant } = await issue({ mode, ...identity, request: requestOf(name, mode as Mode, identity) });
    if (prepared || twoCopies) await issue({ mode, ...identity, previous: warrant, prepared, twoCopies });
    return 'allowed';
  } catch (error) {
    expect(error).toMatchObject({ code: 'NOT_AUTHORISED' });
    return (error as Error).message.split(': ').slice(1).join(': ');
  }
}

describe('without a policy', () => {
  it('whoever holds an operator’s key may all', async () => {
    for (const name of ['local', 'carla', 'dora'])
      expect(
        await verdict(name, {
          prepared: preparedFor('acme'),
          twoCopies: requestOf(name, 'accept-two-copies', { migrationId: 'm1' }),
        }),
      ).toBe('allowed');
  });
});

describe('with a policy', () => {
  beforeEach(() => policy(POLICY));

  it('an operator moves between the hosts and for the tenants of their roles, and no others', async () => {
    expect(await verdict('local')).toBe('allowed');
    expect(await verdict('local', { mode: 'plan' })).toBe('allowed');
    expect(await verdict('local', { sourceHost: 'site-b-7', destinationHost: 'site-a-1' })).toBe('allowed');
    expect(await verdict('local', { destinationHost: 'site-c-1' })).toBe(
      'operator local may move nothing from site-a-1 to site-c-1',
    );
    for (const tenant of ['acme', 'dev-', 'dev-7'])
      expect(await verdict('local', { prepared: preparedFor(tenant) })).toBe('allowed');
    expect(await verdict('local', { prepared: preparedFor('acme2') })).toBe(
      'operator local may move no VM of tenant acme2',
    );
    expect(await verdict('local', { prepared: preparedFor(undefined) })).toBe(
      'operator local may move no VM without a tenant',
    );
  });

  it('an operator without a role, or whom it does not name, may nothing', async () => {
    expect(await verdict('dora')).toBe('operator dora has no role in policy.yaml');
    policy(`${POLICY}  dora: []\n`);
    expect(await verdict('dora', { mode: 'plan' })).toBe('operator dora has no role in policy.yaml');
  });

  it('two copies are the risk of those alone who may override, whoever has asked for the migration', async () => {
    const word = (name: string): string => requestOf(name, 'accept-two-copies', { migrationId: 'm1' });
    expect(await verdict('local', { twoCopies: word('local') })).toBe('operator local may not override');
    expect(await verdict('local', { twoCopies: word('carla') })).toBe('allowed');
  });

  it('one role of several is enough, and none lends another its tenants or hosts', async () => {
    expect(await verdict('carla', { destinationHost: 'site-c-1', prepared: preparedFor(undefined) })).toBe('allowed');
    policy(`
roles:
  here: { may: [move], between: ["site-a-* -> site-b-*"], tenants: [acme] }
  there: { may: [move], between: ["* -> site-c-*"], tenants: [zeta] }
operators: { local: [here, there] }
`);
    expect(await verdict('local', { destinationHost: 'site-c-1', prepared: preparedFor('acme') })).not.toBe('allowed');
    expect(await verdict('local', { destinationHost: 'site-c-1', prepared: preparedFor('zeta') })).toBe('allowed');
    expect(await verdict('local', { mode: 'plan' })).toBe('operator local may not plan');
  });

  it('a migration that goes on is not judged again, and one that begins is by the file as it is then', async () => {
    const { warrant } = await issue({ mode: 'migrate', ...IDENTITY, request: requestOf('local', 'migrate') });
    const { warrant: prepared } = await issue({
      mode: 'migrate',
      ...IDENTITY,
      previous: warrant,
      prepared: preparedFor('acme'),
    });
    policy(POLICY.replace('local: [movers]', 'local: []'));
    const renewed = { mode: 'migrate', ...IDENTITY, previous: prepared, prepared: preparedFor('acme') };
    await expect(issue(renewed)).resolves.toBeDefined();
    expect(await verdict('local')).toBe('operator local has no role in policy.yaml');
  });

  it.each([
    ['roles: [', /./],
    ['', /the file/],
    [`${POLICY}  erik: [none]\n`, /there is no role none/],
    [POLICY.replace('[plan, move]', '[fly]'), /roles\.movers\.may/],
    [POLICY.replace('may: [plan, move]\n', 'may: [plan, move]\n    tenant: [acme]\n'), /tenant/],
    [POLICY.replace('site-a-* -> site-b-*', 'site-a-*'), /source -> destination/],
    [`${POLICY}  __proto__: [movers]\n`, /./],
  ])('a file that is not understood lets nobody do anything: %#', async (text, says) => {
    policy(text);
    const said = await verdict('carla');
    expect(said).toMatch(says);
    if (!text.includes('__proto__')) expect(said).toContain('cannot be followed');
  });

  it('a file that others may write is not believed', async () => {
    chmodSync(join(trust.path, 'policy.yaml'), 0o666);
    expect(await verdict('local')).toContain('open to other users');
  });
});

it('a pattern of many stars is judged at once', () => {
  const { roles } = parsePolicy(
    `roles: { r: { may: [plan], tenants: ["${'a*'.repeat(90)}b"] } }\noperators: { local: [r] }`,
  );
  expect(roles.r?.tenants).toHaveLength(1);
  policy(`roles: { r: { may: [plan], tenants: ["${'a*'.repeat(90)}b"] } }\noperators: { local: [r] }`);
  expect(trust.objectionOf('local', { mode: 'plan', tenant: 'a'.repeat(10_000) })).toContain('tenant');
});

it('each decision is written down, a renewal is not; of two workers each has a folder', async () => {
  const parent = temporaryFolder();
  const warn = (error: Error): never => {
    throw error;
  };
  const first = await openDecisions({ controlAuditDir: parent }, warn);
  const second = await openDecisions({ controlAuditDir: parent }, warn);
  expect([first.folder, second.folder]).toEqual([join(parent, '1'), join(parent, '2')]);
  const issuer = createIssuer(trust, first);
  const wanted = { mode: 'migrate', ...IDENTITY } as Wanted;
  const { warrant: previous } = await issuer({
    ...wanted,
    request: signRequest(trust, { mode: 'migrate', ...IDENTITY }),
  });
  await issuer({ ...wanted, previous });
  await issuer({ ...wanted, previous, prepared: preparedFor('acme') });
  policy(POLICY);
  await expect(
    Promise.resolve().then(() => issuer({ ...wanted, request: requestOf('dora', 'migrate') })),
  ).rejects.toMatchObject({ code: 'NOT_AUTHORISED' });
  await first.close();
  await second.close();
  const lines: AuditLine[] = [];
  for await (const { line } of readAudit(first.folder)) lines.push(line);
  expect(lines).toMatchObject([
    { event: 'authorised', by: 'local', action: 'migrate', ...IDENTITY },
    { event: 'authorised', by: 'local', action: 'migrate', tenant: 'acme' },
    { event: 'refused', code: 'NOT_AUTHORISED', why: expect.stringContaining('dora') as string, ...IDENTITY },
  ]);
});
