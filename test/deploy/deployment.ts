/**
 * A deployment of docker-compose.yml on this machine without containers: each service's own command, environment, secrets and mounts, in
 * a folder of the test's own. What is claimed of it is native.test.ts's.
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
import { parse } from 'yaml';
import { freePort } from '../../src/control/embedded-server';
import { findTemporalBinary } from '../../src/control/temporal-binary';
import { temporaryFolder } from '../helpers/data';
import { postgresFolder } from '../helpers/needs';
import { temporalPrograms } from '../helpers/temporal-programs';

const root = join(__dirname, '..', '..', '..');
const DWCP = ['node', join(root, 'dist', 'src', 'cli', 'main.js')];

interface Service {
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly secrets?: readonly (string | { readonly source: string; readonly target: string })[];
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly volumes?: readonly string[];
}

interface ComposeFile {
  readonly services: Readonly<Record<string, Service>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

const file = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), { merge: true }) as ComposeFile;

export function serviceOf(name: string): Service {
  const service = file.services[name];
  if (!service) throw new Error(`docker-compose.yml has no service ${name}`);
  return service;
}

const PORTS = [
  ...['postgresql', 'token-keys', 'temporal', 'inner-frontend', 'history'],
  ...['agent-a', 'agent-b', 'metrics-a', 'metrics-b', 'metrics-control'],
];

/** One deployment on this machine: a folder for what containers would mount, ports of its own. */
export class Deployment {
  readonly folder = temporaryFolder();
  readonly deploy = join(this.folder, 'deploy');
  readonly running: ChildProcess[] = [];
  ports: Record<string, number> = {};
  binaries = '';

  async prepare(): Promise<void> {
    chmodSync(this.folder, 0o755);
    cpSync(join(root, 'deploy'), this.deploy, { recursive: true, filter: (path) => !path.includes('secrets/') });
    execFileSync('/bin/sh', [join(this.deploy, 'make-secrets.sh')]);
    // Each container reads its mounts as its own user; here all are root.
    for (const name of ['trust', 'trust-of-agents'])
      execFileSync('chown', ['-R', '0', join(this.deploy, 'secrets', name)]);
    this.binaries = join(this.folder, 'bin');
    mkdirSync(this.binaries);
    const { path: temporal } = await findTemporalBinary((line) => process.stderr.write(`${line}\n`));
    symlinkSync(temporal, join(this.binaries, 'temporal'));
    for (const name of ['temporal-server', 'temporal-sql-tool'])
      symlinkSync(join(temporalPrograms(), name), join(this.binaries, name));
    for (const name of PORTS) this.ports[name] = await freePort();
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
    const mounted = (service.volumes ?? []).map((each) => each.split(':')).find(([, place]) => place === text)?.[0];
    if (mounted?.startsWith('./') === true) return join(this.folder, mounted);
    return text
      .replace(/^\/deploy\b/, this.deploy)
      .replace('/opt/dwcp', root)
      .replace(/\btemporal:7233\b/, `127.0.0.1:${this.port('temporal')}`)
      .replace(/\btoken-keys:8088\b/, `127.0.0.1:${this.port('token-keys')}`)
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

  /** Runs something with a service's access to Temporal. */
  async asClient(name: string, run: () => Promise<void>): Promise<void> {
    const before = process.env;
    const given = Object.entries(this.environment(name, {})).filter(([key]) => key.startsWith('TEMPORAL_'));
    process.env = { ...before, ...Object.fromEntries(given) };
    try {
      await run();
    } finally {
      process.env = before;
    }
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
