/**
 * The system under measurement: server, control worker and agents as processes, on loopback or in two network
 * namespaces; and what is read off them from outside.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { type Child, Children } from '../src/cli/demo/children';
import { startEmbeddedServer } from '../src/control/embedded-server';
import { createOrchestrator, type MigrateOptions, type Orchestrator } from '../src/control/orchestrator';
import { killGuestsNaming } from '../src/hypervisor/qemu/process-table';
import type { ImageKind } from '../src/model/ids';
import type { MigrationResult } from '../src/model/migration';
import { VmRegistry } from '../src/store/vm-registry';
import { TrustFolder } from '../src/trust/trust-folder';
import { say } from './report';

export interface StageHost {
  readonly hostId: string;
  readonly address: string;
  readonly dataDir: string;
  readonly prefix: readonly string[];
}

interface StagePlace {
  readonly hostId?: string;
  readonly address: string;
  readonly prefix?: readonly string[];
}

export interface StageOptions {
  readonly name: string;
  /** Where both hosts reach the Temporal server on this machine; loopback where nothing is said. */
  readonly serverAddress?: string;
  readonly a?: StagePlace;
  readonly b?: StagePlace;
  /** Parent of all data; a tmpfs leaves the disk out of the measurement. */
  readonly parent?: string;
  /** For both agents, behind what the stage gives. */
  readonly agentArgs?: readonly string[];
  /** For host b alone. */
  readonly bArgs?: readonly string[];
  /** With the server's web UI. */
  readonly withUi?: boolean;
}

export class Stage {
  readonly folder: string;
  readonly children: Children;
  readonly a: StageHost;
  readonly b: StageHost;
  readonly agents = new Map<string, Child>();
  uiAddress: string | undefined;
  readonly #options: StageOptions;
  #temporal = '';
  #client: Client | undefined;
  #orchestrator: Orchestrator | undefined;
  #control: Child | undefined;
  #server: Child | undefined;

  constructor(options: StageOptions) {
    this.#options = options;
    this.folder = mkdtempSync(join(options.parent ?? tmpdir(), `dwcp-bench-${options.name}-`));
    const trust = TrustFolder.make(join(this.folder, 'trust'));
    this.children = new Children(join(this.folder, 'logs'), {
      DWCP_TRUST_DIR: trust.path,
      DWCP_CONTROL_AUDIT_DIR: join(this.folder, 'control'),
    });
    this.a = { hostId: 'bench-a', dataDir: join(this.folder, 'a'), address: '127.0.0.1', prefix: [], ...options.a };
    this.b = { hostId: 'bench-b', dataDir: join(this.folder, 'b'), address: '127.0.0.2', prefix: [], ...options.b };
  }

  get client(): Client {
    if (!this.#client) throw new Error('the stage has not been started');
    return this.#client;
  }

  get orchestrator(): Orchestrator {
    if (!this.#orchestrator) throw new Error('the stage has not been started');
    return this.#orchestrator;
  }

  async start(): Promise<void> {
    await this.startServer();
    this.startControl();
    this.startAgent(this.a);
    this.startAgent(this.b);
    this.#client = new Client({ connection: await Connection.connect({ address: this.#temporal }) });
    this.#orchestrator = await createOrchestrator({ client: this.#client, trustDir: join(this.folder, 'trust') });
  }

  async startServer(): Promise<void> {
    const port = Number(this.#temporal.split(':')[1] ?? 0);
    const { serverAddress = '127.0.0.1' } = this.#options;
    const server = await startEmbeddedServer(
      {
        dbFile: join(this.folder, 'temporal.sqlite'),
        address: serverAddress === '127.0.0.1' ? '127.0.0.1' : '0.0.0.0',
        uiPort: this.#options.withUi ? 0 : -1,
        port,
      },
      say,
    );
    this.#server = this.children.adopt('temporal', server.process, '');
    this.uiAddress = server.uiAddress;
    this.#temporal = `${serverAddress}:${server.address.split(':')[1] ?? ''}`;
  }

  /** SIGKILL for one process, and the same started again. */
  async killAndRestart(
    victim: 'source agent' | 'destination agent' | 'control worker' | 'temporal server',
    source: StageHost,
    destination: StageHost,
  ): Promise<void> {
    const host = victim === 'source agent' ? source : destination;
    const child =
      victim === 'control worker'
        ? this.#control
        : victim === 'temporal server'
          ? this.#server
          : this.agents.get(host.hostId);
    child?.process.kill('SIGKILL');
    await child?.ended;
    if (victim === 'control worker') this.startControl();
    else if (victim === 'temporal server') await this.startServer();
    else this.startAgent(host);
  }

  async restartAgent(host: StageHost, extra: readonly string[]): Promise<void> {
    const child = this.agents.get(host.hostId);
    child?.process.kill('SIGTERM');
    await child?.ended;
    this.startAgent(host, extra);
  }

  startControl(): void {
    this.#control = this.children.startDwcp('control', ['control'], { TEMPORAL_ADDRESS: this.#temporal });
  }

  startAgent(host: StageHost, extra: readonly string[] = []): void {
    const args = [
      'agent',
      '--host-id',
      host.hostId,
      '--data-dir',
      host.dataDir,
      '--guest-folders',
      this.folder,
      '--listen-address',
      host.address,
      '--port',
      '9876',
      '--keep-baseline-copy',
      'never',
      ...(this.#options.agentArgs ?? []),
      ...(host === this.b ? (this.#options.bArgs ?? []) : []),
      ...extra,
    ];
    this.agents.set(
      host.hostId,
      this.children.startDwcp(host.hostId, args, { TEMPORAL_ADDRESS: this.#temporal }, host.prefix),
    );
  }

  async defineVm(
    vmId: string,
    host: StageHost,
    images: readonly { imageId: string; kind: ImageKind; path: string }[],
  ): Promise<void> {
    await new VmRegistry(host.dataDir).put({ vmId, images: [...images], presence: 'here', generation: 0 });
  }

  async migrate(
    vmId: string,
    source: StageHost,
    destination: StageHost,
    options: MigrateOptions,
  ): Promise<MigrationResult> {
    const id = await this.orchestrator.migrateVm(vmId, source.hostId, destination.hostId, options);
    return this.orchestrator.waitForResult(id);
  }

  /** Where an image of a VM that came from host a lies on host b. */
  imageOnB(vmId: string, imageId: string): string {
    return join(this.b.dataDir, 'images', vmId, `${imageId}.img`);
  }

  async stop(): Promise<void> {
    await this.#client?.connection.close();
    await this.children.stopAll();
    killGuestsNaming([this.folder]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Peak resident memory of a process, as the kernel counts it. */
export function peakRssBytes(child: Child | undefined): number {
  const status = readFileSync(`/proc/${child?.process.pid ?? 0}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
}

/** Processor time a process has used so far, user and system. */
export function cpuSeconds(child: Child | undefined): number {
  const stat = readFileSync(`/proc/${child?.process.pid ?? 0}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
