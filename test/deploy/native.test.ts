/**
 * What docker-compose.yml runs, run here without containers: each service's own command, environment and secrets, in
 * the order of its dependencies, on PostgreSQL; then a migration between its two agents over TLS.
 */
import { generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection, type ConnectionOptions } from '@temporalio/client';
import type { TLSConfig } from '@temporalio/common/lib/internal-non-workflow';
import { freePort } from '../../src/control/embedded-server';
import { createOrchestrator } from '../../src/control/orchestrator';
import { VmRegistry } from '../../src/store/vm-registry';
import { sha256, writeImage } from '../helpers/data';
import { describeWhere, needsProgram, needsRoot, postgresFolder } from '../helpers/needs';
import { needsGo } from '../helpers/temporal-programs';
import { Deployment } from './deployment';

const missing = [
  needsRoot(),
  needsGo(),
  needsProgram('initdb', 'postgresql', postgresFolder()),
  needsProgram('nc', 'netcat-openbsd'),
  needsProgram('openssl', 'openssl'),
];

describeWhere(missing)('the deployment of docker-compose.yml, run natively', () => {
  const deployment = new Deployment();
  afterAll(() => deployment.stop());

  test('brings a VM from one of its agents to the other over TLS, and each one-shot may run again', async () => {
    await deployment.prepare();
    deployment.startPostgres();
    const postgres = { PGPORT: String(deployment.port('postgresql')), PGHOST: '127.0.0.1' };
    await deployment.untilHealthy('postgresql', { ...postgres, PATH: `${postgresFolder()}:${process.env.PATH ?? ''}` });

    const database = { DB_PORT: String(deployment.port('postgresql')) };
    expect(deployment.run('temporal-schema', database)).toContain(
      'temporal_visibility is at the schema of this release',
    );
    expect(deployment.run('temporal-schema', database)).toContain('temporal is at the schema of this release');

    const own = async (): Promise<string> => String(await freePort());
    const keys = { JWKS_PORT: String(deployment.port('token-keys')), JWKS_ADDRESS: '127.0.0.1' };
    deployment.start('token-keys', keys);
    await deployment.untilHealthy('token-keys', keys);
    const server = {
      ...database,
      BIND_ON_IP: '127.0.0.1',
      FRONTEND_GRPC_PORT: String(deployment.port('temporal')),
      INTERNAL_FRONTEND_GRPC_PORT: String(deployment.port('inner-frontend')),
      INTERNAL_FRONTEND_MEMBERSHIP_PORT: await own(),
      NUM_HISTORY_SHARDS: '4',
      HISTORY_GRPC_PORT: String(deployment.port('history')),
      MATCHING_GRPC_PORT: await own(),
      WORKER_GRPC_PORT: await own(),
      FRONTEND_MEMBERSHIP_PORT: await own(),
      HISTORY_MEMBERSHIP_PORT: await own(),
      MATCHING_MEMBERSHIP_PORT: await own(),
      WORKER_MEMBERSHIP_PORT: await own(),
    };
    deployment.start('temporal', server);
    // Compose's own address of the server is its service name; here it is the loopback's.
    await deployment.untilHealthy('temporal');
    expect(deployment.run('temporal-namespace')).toContain('namespace dwcp is there');
    expect(deployment.run('temporal-namespace')).toContain('namespace dwcp is there');

    const metrics = (name: string): Record<string, string> => ({
      DWCP_METRICS_PORT: String(deployment.port(name)),
      DWCP_METRICS_ADDRESS: '127.0.0.1',
    });
    deployment.start('control', metrics('metrics-control'));
    for (const side of ['a', 'b']) {
      const agent = {
        ...metrics(`metrics-${side}`),
        DWCP_DATA_DIR: join(deployment.folder, side),
        DWCP_ADVERTISE_ADDRESS: '127.0.0.1',
        DWCP_PORT: String(deployment.port(`agent-${side}`)),
      };
      deployment.start(`agent-${side}`, agent);
      await deployment.untilHealthy(`agent-${side}`, agent);
    }
    await deployment.untilHealthy('control', metrics('metrics-control'));

    const disk = join(deployment.folder, 'disk.img');
    writeImage(disk, 8 * 1024 * 1024, 77);
    const hash = sha256(disk);
    await new VmRegistry(join(deployment.folder, 'a')).put({
      vmId: 'deployed',
      images: [{ imageId: 'vda', kind: 'disk', path: disk }],
      presence: 'here',
      generation: 0,
    });
    await deployment.asClient('control', async () => {
      const { DWCP_PAYLOAD_KEY_FILE, DWCP_TRUST_DIR } = deployment.environment('control', {});
      const orchestrator = await createOrchestrator({
        payloadKeyFile: DWCP_PAYLOAD_KEY_FILE!,
        trustDir: DWCP_TRUST_DIR!,
      });
      const result = await orchestrator.waitForResult(await orchestrator.migrateVm('deployed', 'agent-a', 'agent-b'));
      await orchestrator.close();
      expect(result).toMatchObject({ outcome: 'completed', path: 'dwcp' });
    });
    expect(sha256(join(deployment.folder, 'b', 'images', 'deployed', 'vda.img'))).toBe(hash);
  }, 1_200_000);

  const secret = (name: string): Buffer => readFileSync(join(deployment.deploy, 'secrets', name));
  const tls = (client?: string): TLSConfig => ({
    serverNameOverride: 'temporal',
    serverRootCACertificate: secret('temporal-ca.pem'),
    ...(client !== undefined && {
      clientCertPair: { crt: secret(`client-${client}.pem`), key: secret(`client-${client}.key`) },
    }),
  });
  const tokenOf = (client: string): string => secret(`token-${client}`).toString().trim();

  /** What a server's port says to one that asks for all migrations. */
  async function answer(to: string, options: Pick<ConnectionOptions, 'tls' | 'apiKey'>): Promise<string> {
    try {
      const address = `127.0.0.1:${deployment.port(to)}`;
      const connection = await Connection.connect({ address, connectTimeout: 3000, ...options });
      try {
        await connection.workflowService.listWorkflowExecutions({ namespace: 'dwcp' });
        return 'listed';
      } finally {
        await connection.close();
      }
    } catch (error) {
      const { message, cause } = error as Error;
      return `${message}: ${cause instanceof Error ? cause.message : ''}`;
    }
  }

  test('lets in who has a certificate and a token, and nobody else', async () => {
    expect(await answer('temporal', { tls: tls('agent-a'), apiKey: tokenOf('agent-a') })).toBe('listed');
    expect(await answer('temporal', {})).not.toBe('listed');
    const noCertificate = await answer('temporal', { tls: tls(), apiKey: tokenOf('operator') });
    expect(noCertificate).toMatch(/connect|UNAVAILABLE|certificate|deadline/i);
    // Another authority's: that of the agents among themselves, and of the server's own parts.
    for (const stranger of ['agent-a', 'temporal']) {
      const clientCertPair = { crt: secret(`${stranger}.pem`), key: secret(`${stranger}.key`) };
      const said = await answer('temporal', { tls: { ...tls(), clientCertPair }, apiKey: tokenOf('agent-a') });
      expect(said).toMatch(/connect|UNAVAILABLE|certificate|deadline/i);
    }
    expect(await answer('temporal', { tls: tls('agent-a') })).toMatch(/PERMISSION_DENIED|unauthorized/i);
    const [head, body, signature] = tokenOf('agent-a').split('.') as [string, string, string];
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const forged = `${head}.${body}.${sign('sha256', Buffer.from(`${head}.${body}`), privateKey).toString('base64url')}`;
    const json = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const unsigned = `${json({ alg: 'none', typ: 'JWT' })}.${body}.`;
    const raised = `${head}.${json({ sub: 'agent-a', permissions: ['temporal-system:admin'] })}.${signature}`;
    const signedBy = (claims: object): string => {
      const text = `${head}.${json(claims)}`;
      return `${text}.${sign('sha256', Buffer.from(text), secret('jwt.key')).toString('base64url')}`;
    };
    const nowSeconds = Math.floor(Date.now() / 1000);
    const over = signedBy({ sub: 'agent-a', permissions: ['dwcp:write'], exp: nowSeconds - 60 });
    const elsewhere = signedBy({ sub: 'agent-a', permissions: ['other:admin'], exp: nowSeconds + 600 });
    const wrong = { forged, unsigned, raised, over, elsewhere, nonsense: 'nonsense' };
    for (const [name, apiKey] of Object.entries(wrong))
      expect([name, await answer('temporal', { tls: tls('agent-a'), apiKey })]).toEqual([
        name,
        expect.stringMatching(/PERMISSION_DENIED|UNAUTHENTICATED|unauthorized/i),
      ]);
    await deployment.asClient('control', async () => {
      const path = join(deployment.folder, 'wrong-token');
      writeFileSync(path, forged, { mode: 0o600 });
      process.env.TEMPORAL_API_KEY_FILE = path;
      await expect(createOrchestrator()).rejects.toMatchObject({
        code: 'CONTROL_PLANE_UNREACHABLE',
        message: expect.stringContaining('does not let this client in') as string,
      });
    });
    // As it was: what is refused is refused for what is wrong with it.
    expect(await answer('temporal', { tls: tls('operator'), apiKey: tokenOf('operator') })).toBe('listed');
  }, 120_000);

  test('lets no client at the server’s inner ports, and an agent no further than its namespace', async () => {
    for (const port of ['inner-frontend', 'history'])
      for (const client of ['agent-a', 'setup'])
        expect(await answer(port, { tls: tls(client), apiKey: tokenOf(client) })).toMatch(
          /connect|UNAVAILABLE|certificate|deadline/i,
        );
    const connection = await Connection.connect({
      address: `127.0.0.1:${deployment.port('temporal')}`,
      tls: tls('agent-a'),
      apiKey: tokenOf('agent-a'),
    });
    const { workflowService, operatorService } = connection;
    await expect(workflowService.listNamespaces({})).rejects.toMatchObject({ code: 7 });
    await expect(
      operatorService.removeSearchAttributes({ namespace: 'dwcp', searchAttributes: ['VmId'] }),
    ).rejects.toMatchObject({ code: 7 });
    await expect(operatorService.deleteNamespace({ namespace: 'dwcp' })).rejects.toMatchObject({ code: 7 });
    await connection.close();
  }, 60_000);
});
