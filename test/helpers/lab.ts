/**
 * The whole system as processes of its own: a Temporal server, the control worker, two agents with their data folders.
 * For tests that kill, cut and fill. Everything is ended and removed after the test, and nothing may be left lying.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { type Child, Children, lastLine } from '../../src/cli/demo/children';
import { type EmbeddedServer, freePort, startEmbeddedServer } from '../../src/control/embedded-server';
import type { MigrationStatus } from '../../src/control/migration-status';
import { createOrchestrator, type MigrateOptions, type Orchestrator } from '../../src/control/orchestrator';
import { payloadConverter } from '../../src/control/payload-codec';
import { errnoOf } from '../../src/model/errors';
import type { MigrationResult } from '../../src/model/migration';
import { VmRegistry } from '../../src/store/vm-registry';
import { TrustFolder } from '../../src/trust/trust-folder';
import { endBehindAll } from './children-check';
import { sha256, temporaryFolder, writeImage } from './data';

export interface LabHost {
  readonly hostId: string;
  readonly dataDir: string;
  readonly port: number;
  /** Of its own, beside what all agents are given. */
  readonly args: readonly string[];
  agent: Child | undefined;
}

export interface LabOptions {
  /** A server of its own, which may be killed; else the one that all workflow tests share. */
  readonly own?: boolean;
  readonly agentArgs?: readonly string[];
  readonly bArgs?: readonly string[];
  readonly aDataDir?: string | undefined;
  readonly bDataDir?: string | undefined;
  /** Where the disks of VMs of host a lie. */
  readonly vmsFolder?: string | undefined;
  /** As the option of that name, for all processes and the client. */
  readonly payloadKeyFile?: string;
  /** It outlives its test, for the next; who has started it stops it. */
  readonly keep?: boolean;
}

export type LabProcess = 'source agent' | 'destination agent' | 'control worker' | 'Temporal server';

const open = new Set<Lab>();

export class Lab {
  readonly folder: string;
  readonly children: Children;
  readonly trust: TrustFolder;
  readonly a: LabHost;
  readonly b: LabHost;
  #server: EmbeddedServer | undefined;
  #serverPort = 0;
  #control: Child | undefined;
  #client: Client | undefined;
  #orchestrator: Orchestrator | undefined;
  readonly #env: Record<string, string> = {};
  readonly #vmsFolder: string;
  readonly kept: boolean;

  private constructor(
    folder: string,
    ports: readonly [number, number],
    { own = false, agentArgs = [], bArgs = [], aDataDir, bDataDir, vmsFolder, keep = false }: LabOptions,
  ) {
    // Of no other lab of the server, in whatever file: a trust folder holds a host id against the first one's key.
    const name = randomBytes(4).toString('hex');
    this.folder = folder;
    this.kept = keep;
    // Control workers of all labs on one server take one another's work.
    const shared = own ? undefined : process.env.DWCP_TRUST_DIR;
    this.trust = TrustFolder.make(shared ?? join(folder, 'trust'));
    this.children = new Children(join(folder, 'logs'), {
      DWCP_TRUST_DIR: this.trust.path,
      DWCP_CONTROL_AUDIT_DIR: join(folder, 'control'),
    });
    this.#vmsFolder = vmsFolder ?? join(folder, 'vms');
    this.a = {
      hostId: `a-${name}`,
      dataDir: aDataDir ?? join(folder, 'a'),
      port: ports[0],
      args: agentArgs,
      agent: undefined,
    };
    this.b = {
      hostId: `b-${name}`,
      dataDir: bDataDir ?? join(folder, 'b'),
      port: ports[1],
      args: [...agentArgs, ...bArgs],
      agent: undefined,
    };
  }

  static async start(options: LabOptions = {}): Promise<Lab> {
    const lab = new Lab(temporaryFolder(), [await freePort(), await freePort()], options);
    open.add(lab);
    if (options.own ?? false) await lab.startServer();
    else lab.#env.TEMPORAL_ADDRESS = process.env.DWCP_TEST_TEMPORAL ?? '';
    const keyFile = options.payloadKeyFile ?? '';
    lab.#env.DWCP_PAYLOAD_KEY_FILE = keyFile;
    lab.#client = new Client({
      connection: await Connection.connect({ address: lab.#env.TEMPORAL_ADDRESS ?? '' }),
      dataConverter: payloadConverter(keyFile),
    });
    lab.#orchestrator = await createOrchestrator({ client: lab.#client, trustDir: lab.trust.path });
    lab.startControl();
    lab.startAgent(lab.a);
    lab.startAgent(lab.b);
    return lab;
  }

  get orchestrator(): Orchestrator {
    return this.#orchestrator!;
  }

  get client(): Client {
    return this.#client!;
  }

  get address(): string {
    return this.#env.TEMPORAL_ADDRESS ?? '';
  }

  async startServer(): Promise<void> {
    this.#server = await startEmbeddedServer(
      { dbFile: join(this.folder, 'temporal.sqlite'), uiPort: -1, port: this.#serverPort },
      () => undefined,
    );
    this.#serverPort = Number(this.#server.address.split(':')[1]);
    this.#env.TEMPORAL_ADDRESS = this.#server.address;
    this.children.adopt('temporal', this.#server.process, '');
  }

  startControl(): void {
    this.#control = this.children.startDwcp('control', ['control'], this.#env);
    void tellIfItFails(this.#control);
  }

  startAgent(host: LabHost): void {
    const args = [
      'agent',
      '--host-id',
      host.hostId,
      '--data-dir',
      host.dataDir,
      '--guest-folders',
      this.folder,
      '--listen-address',
      '127.0.0.1',
      '--port',
      String(host.port),
      '--sweep-interval',
      '2s',
      '--worker-threads',
      '2',
    ];
    host.agent = this.children.startDwcp(host.hostId, [...args, ...host.args], this.#env);
    void tellIfItFails(host.agent);
  }

  /** SIGKILL, and the same process started again a moment later. */
  async killAndRestart(what: LabProcess, pauseMs = 300): Promise<void> {
    await this.kill(what);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    await this.startAgain(what);
  }

  async kill(what: LabProcess): Promise<void> {
    const child = this.processOf(what);
    child?.process.kill('SIGKILL');
    await child?.ended;
  }

  async startAgain(what: LabProcess): Promise<void> {
    if (what === 'source agent') this.startAgent(this.a);
    else if (what === 'destination agent') this.startAgent(this.b);
    else if (what === 'control worker') this.startControl();
    else await this.startServer();
  }

  processOf(what: LabProcess): Pick<Child, 'process' | 'ended'> | undefined {
    return {
      'source agent': this.a.agent,
      'destination agent': this.b.agent,
      'control worker': this.#control,
      'Temporal server': this.#server,
    }[what];
  }

  /** What its processes have written, each one's starts one behind the other. */
  logs(): { readonly name: string; readonly text: string }[] {
    const folder = join(this.folder, 'logs');
    return readdirSync(folder).map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
  }

  /** A VM of one disk (and a small memory image) on host a, sparse and partly compressible. */
  async defineVm(
    vmId: string,
    sizeBytes: number,
    seed = 1,
  ): Promise<{ disk: string; memory: string; hashes: string[] }> {
    const folder = this.vmFolder(vmId);
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    const memory = join(folder, 'memory.img');
    writeImage(disk, sizeBytes, seed);
    writeImage(memory, 2 * 1024 * 1024 + 4096, seed + 1);
    await new VmRegistry(this.a.dataDir).put({
      vmId,
      images: [
        { imageId: 'vda', kind: 'disk', path: disk },
        { imageId: 'memory', kind: 'memory', path: memory },
      ],
      presence: 'here',
      generation: 0,
    });
    return { disk, memory, hashes: [sha256(disk), sha256(memory)] };
  }

  /** Where the disks of a VM of host a lie. */
  vmFolder(vmId: string): string {
    return join(this.#vmsFolder, vmId);
  }

  imagesOnB(vmId: string): string[] {
    return ['vda', 'memory'].map((imageId) => join(this.b.dataDir, 'images', vmId, `${imageId}.img`));
  }

  hashesOnB(vmId: string): string[] {
    return this.imagesOnB(vmId).map(sha256);
  }

  migrate(vmId: string, options: MigrateOptions = {}): Promise<string> {
    return this.orchestrator.migrateVm(vmId, this.a.hostId, this.b.hostId, options);
  }

  async result(migrationId: string): Promise<MigrationResult> {
    return this.orchestrator.waitForResult(migrationId);
  }

  /** Polls until something holds of a migration's status. A server that is away for a moment is waited for. */
  async until(
    migrationId: string,
    what: string,
    holds: (status: MigrationStatus) => boolean,
    timeoutMs = 60_000,
  ): Promise<MigrationStatus> {
    const deadline = Date.now() + timeoutMs;
    let last = '';
    while (Date.now() < deadline) {
      try {
        const status = await this.orchestrator.getMigrationStatus(migrationId);
        if (holds(status)) return status;
        last = JSON.stringify({
          state: status.state,
          phase: status.progress?.phase,
          parked: status.progress?.parked,
          live: status.live,
          error: status.error?.report(),
        });
        if (status.state !== 'running') break;
      } catch (error) {
        last = String(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const logs = [this.#control, this.a.agent, this.b.agent].map((child) =>
      child
        ? `${child.name} (ended: ${child.process.exitCode ?? child.process.signalCode ?? 'no'}): ${lastLine(child.logFile)}`
        : '',
    );
    throw new Error(`${what} did not come about; last seen: ${last}\n${logs.join('\n')}`);
  }

  /** Waits until an image is `share` of the way. */
  async untilShare(migrationId: string, share: number): Promise<void> {
    await this.until(migrationId, `${share * 100} %`, ({ live }) =>
      live.some((image) => image.imageId === 'vda' && image.doneBytes >= share * image.totalBytes),
    );
  }

  /** Files that a migration must not leave behind, on either host, once all is settled. */
  leftovers(): string[] {
    const bad = /\.dwcp-work$|\.part$|\.tmp$|\.files$/;
    const roots = [this.a.dataDir, this.b.dataDir, this.#vmsFolder];
    const files = roots.filter((root) => existsSync(root)).flatMap(filesBelow);
    return files
      .filter((path) => bad.test(path) || /\/(incoming|outgoing)\/./.test(path))
      .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false);
  }

  /** Waits for the sweeps to have settled everything. */
  async untilClean(): Promise<void> {
    const deadline = Date.now() + 20_000;
    let left = this.leftovers();
    for (; left.length > 0 && Date.now() < deadline; left = this.leftovers())
      await new Promise((resolve) => setTimeout(resolve, 200));
    // Not looked at once more: a file that is just being written is no leftover.
    expect(left).toEqual([]);
  }

  async stop(): Promise<void> {
    open.delete(this);
    await this.#client?.connection.close();
    await this.children.stopAll();
  }
}

/** A process that ends by itself would else be waited for in silence until the test's time is up. */
async function tellIfItFails({ name, ended, process: child, logFile }: Child): Promise<void> {
  await ended;
  if (child.exitCode) process.stderr.write(`${name} ended with ${child.exitCode}: ${lastLine(logFile)}\n`);
}

/** All paths below a folder; agents may remove some of it meanwhile. */
function filesBelow(root: string): string[] {
  for (;;) {
    try {
      return readdirSync(root, { recursive: true, withFileTypes: true }).map((entry) =>
        join(entry.parentPath, entry.name),
      );
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }
}

afterEach(async () => {
  for (const lab of [...open]) if (!lab.kept) await lab.stop();
});

/**
 * One lab for the tests of a file or a describe, started by the first: to start its processes takes longer than many a test. Whoever
 * kills one starts it again.
 */
export function sharedLab(options: LabOptions = {}): () => Promise<Lab> {
  let lab: Promise<Lab> | undefined;
  endBehindAll(async () => (await lab)?.stop());
  return () => (lab ??= Lab.start({ ...options, keep: true }));
}
