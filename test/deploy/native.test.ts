/**
 * What docker-compose.yml runs, run here without containers: each service's own command, environment and secrets, in
 * the order of its dependencies, on PostgreSQL; then a migration between its two agents over TLS.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { parse } from 'yaml';
import { freePort } from '../../src/control/embedded-server';
import { createOrchestrator } from '../../src/control/orchestrator';
import { findTemporalBinary } from '../../src/control/temporal-binary';
import { VmRegistry } from '../../src/store/vm-registry';
import { sha256, temporaryFolder, writeImage } from '../helpers/data';
import { describeWhere, needsProgram, needsRoot, postgresFolder } from '../helpers/needs';
import { needsGo, temporalPrograms } from '../helpers/temporal-programs';

const root = join(__dirname, '..', '..', '..');
const DWCP = ['node', '--enable-source-maps', join(root, 'dist', 'src', 'cli', 'main.js')];

interface Service {
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly secrets?: readonly (string | { readonly source: string; readonly target: string })[];
  readonly healthcheck?: { readonly test: readonly string[] };
}

interface ComposeFile {
  readonly services: Readonly<Record<string, Service>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

const file = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), { merge: true }) as ComposeFile;

function serviceOf(name: string): Service {
  const service = file.services[name];
  if (!service) throw new Error(`docker-compose.yml has no service ${name}`);
  return service;
}

/** One deployment on this machine: a folder for what containers would mount, ports of its own. */
class Deployment {
  readonly folder = temporaryFolder();
  readonly deploy = join(this.folder, 'deploy');
  readonly running: ChildProcess[] = [];
  ports: Record<string, number> = {};
  binaries = '';

  async prepare(): Promise<void> {
    chmodSync(this.folder, 0o755);
    cpSync(join(root, 'deploy'), this.deploy, { recursive: true, filter: (path) => !path.includes('secrets/') });
    execFileSync('/bin/sh', [join(this.deploy, 'make-secrets.sh')]);
    this.binaries = join(this.folder, 'bin');
    mkdirSync(this.binaries);
    const { path: temporal } = await findTemporalBinary((line) => process.stderr.write(`${line}\n`));
    symlinkSync(temporal, join(this.binaries, 'temporal'));
    for (const name of ['temporal-server', 'temporal-sql-tool'])
      symlinkSync(join(temporalPrograms(), name), join(this.binaries, name));
    for (const name of ['postgresql', 'temporal', 'agent-a', 'agent-b', 'metrics-a', 'metrics-b', 'metrics-control'])
      this.ports[name] = await freePort();
  }

  port(name: string): number {
    return this.ports[name] ?? 0;
  }

  /** A path or address as it is inside a container, as it is here. */
  here(text: string, service: Service): string {
    const secret = /^\/run\/secrets\/(.+)$/.exec(text)?.[1];
    if (secret !== undefined) {
      const entry = (service.secrets ?? []).find((each) => (typeof each === 'string' ? each : each.target) === secret);
      if (entry === undefined) throw new Error(`${text} is no secret of the service`);
      return join(this.folder, file.secrets[typeof entry === 'string' ? entry : entry.source]?.file ?? '');
    }
    return text
      .replace(/^\/deploy\b/, this.deploy)
      .replace('/opt/dwcp', root)
      .replace(/\btemporal:7233\b/, `127.0.0.1:${this.port('temporal')}`)
      .replace(/^postgresql$/, '127.0.0.1');
  }

  environment(name: string, extra: Readonly<Record<string, string>>): Record<string, string> {
    const service = serviceOf(name);
    const own = Object.fromEntries(
      Object.entries(service.environment ?? {}).map(([key, value]) => [key, this.here(value, service)]),
    );
    return { PATH: `${this.binaries}:${process.env.PATH ?? ''}`, HOME: this.folder, ...own, ...extra };
  }

  commandOf(name: string): string[] {
    const service = serviceOf(name);
    return [...(service.entrypoint ?? DWCP), ...(service.command ?? [])].map((word) => this.here(word, service));
  }

  /** A one-shot, to its end. */
  run(name: string, extra: Readonly<Record<string, string>> = {}): string {
    const [command = '', ...args] = this.commandOf(name);
    const { status, stdout, stderr } = spawnSync(command, args, {
      env: this.environment(name, extra),
      encoding: 'utf8',
      timeout: 120_000,
    });
    if (status !== 0) throw new Error(`${name} ended with ${String(status)}: ${stderr.slice(-2000)}`);
    return stdout;
  }

  start(name: string, extra: Readonly<Record<string, string>> = {}): void {
    const [command = '', ...args] = this.commandOf(name);
    const log = openSync(join(this.folder, `${name}.log`), 'a');
    this.running.push(spawn(command, args, { env: this.environment(name, extra), stdio: ['ignore', log, log] }));
    closeSync(log);
  }

  /** Runs a service's health check until it is content, as Compose does. */
  async untilHealthy(name: string, extra: Readonly<Record<string, string>> = {}): Promise<void> {
    const [kind, ...words] = serviceOf(name).healthcheck?.test ?? [];
    expect(kind).toBe('CMD');
    const [command = '', ...args] = words.map(
      (word) =>
        ({ temporal: '127.0.0.1', 7233: String(this.port('temporal')) })[word] ?? this.here(word, serviceOf(name)),
    );
    for (const deadline = Date.now() + 90_000; ; await new Promise((resolve) => setTimeout(resolve, 500))) {
      if (spawnSync(command, args, { env: this.environment(name, extra) }).status === 0) return;
      if (Date.now() > deadline)
        throw new Error(
          `${name} does not become healthy: ${readFileSync(join(this.folder, `${name}.log`), 'utf8').slice(-2000)}`,
        );
    }
  }

  /** PostgreSQL refuses root, so it runs as the user of Debian's package. */
  startPostgres(): void {
    const service = serviceOf('postgresql');
    const data = join(this.folder, 'postgresql-data');
    const [uid, gid] = ['-u', '-g'].map((flag) =>
      Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })),
    ) as [number, number];
    mkdirSync(data);
    chownSync(data, uid, gid);
    const password = this.here(service.environment?.POSTGRES_PASSWORD_FILE ?? '', service);
    expect(statSync(password).size).toBeGreaterThan(20);
    // The image's entry point reads it as root, before it becomes the database's user.
    const handedOn = join(this.folder, 'password-for-initdb');
    copyFileSync(password, handedOn);
    chownSync(handedOn, uid, gid);
    const as = { uid, gid, cwd: data };
    execFileSync(
      join(postgresFolder(), 'initdb'),
      ['-D', data, '-U', service.environment?.POSTGRES_USER ?? '', '--pwfile', handedOn, '-A', 'scram-sha-256'],
      { ...as, stdio: 'ignore' },
    );
    const log = openSync(join(this.folder, 'postgresql.log'), 'a');
    this.running.push(
      spawn(
        join(postgresFolder(), 'postgres'),
        [
          '-D',
          data,
          '-p',
          String(this.port('postgresql')),
          '-c',
          'listen_addresses=127.0.0.1',
          '-c',
          `unix_socket_directories=${data}`,
        ],
        { ...as, stdio: ['ignore', log, log] },
      ),
    );
    closeSync(log);
  }

  async stop(): Promise<void> {
    for (const child of this.running.reverse()) {
      const ended = new Promise((resolve) => child.once('close', resolve));
      // PostgreSQL waits for its clients on SIGTERM.
      if (child.exitCode === null) child.kill(child.spawnfile.endsWith('postgres') ? 'SIGINT' : 'SIGTERM');
      else continue;
      const timer = setTimeout(() => child.kill('SIGKILL'), 8000);
      await ended;
      clearTimeout(timer);
    }
  }
}

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
    const server = {
      ...database,
      BIND_ON_IP: '127.0.0.1',
      FRONTEND_GRPC_PORT: String(deployment.port('temporal')),
      FRONTEND_HTTP_PORT: await own(),
      NUM_HISTORY_SHARDS: '4',
      HISTORY_GRPC_PORT: await own(),
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
    const { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace } = deployment.environment('control', {});
    const connection = await Connection.connect({ address: address! });
    const orchestrator = await createOrchestrator({ client: new Client({ connection, namespace: namespace! }) });
    const result = await orchestrator.waitForResult(await orchestrator.migrateVm('deployed', 'host-a', 'host-b'));
    await connection.close();
    expect(result).toMatchObject({ outcome: 'completed', path: 'dwcp' });
    expect(sha256(join(deployment.folder, 'b', 'images', 'deployed', 'vda.img'))).toBe(hash);
  }, 1_200_000);
});
