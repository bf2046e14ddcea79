/**
 * The demonstration: a server, a control worker and two agents as processes of their own; a real VM that moves, survives
 * a killed agent in the middle, is changed and comes back almost for free. Everything it prints was measured.
 */
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { freePort, isFreePort, startEmbeddedServer } from '../../control/embedded-server';
import { createOrchestrator, type Orchestrator } from '../../control/orchestrator';
import { payloadConverter } from '../../control/payload-codec';
import { killGuestsNaming } from '../../hypervisor/qemu/process-table';
import { onAbort } from '../../model/abort';
import { DwcpError } from '../../model/errors';
import type { MigrationResult } from '../../model/migration';
import { keepBaselinesWorkflowId, migrationWorkflowId } from '../../model/names';
import { formatBitRate, formatBytes, formatDuration, MIB } from '../../model/units';
import { wait } from '../../system/wait';
import { TrustFolder } from '../../trust/trust-folder';
import type { Output } from '../output';
import { Children } from './children';
import { type Leg, legsText } from './legs';
import { ensureQemu, QEMU_INSTALL_LINE } from './qemu-package';
import { GuestDemo, type GuestLeg, guestSummary } from './running-guest';
import { changePart, dumpOwnMemory, makeDiskImage, sha256OfFile } from './sample-vm';
import { findTool } from './tools';

export interface DemoOptions {
  readonly keep: boolean;
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly diskBytes: number;
  readonly payloadKeyFile: string;
}

const VM = 'demo';
const MEMORY_BYTES = 96 * MIB;
/** Slow enough to be watched and interrupted, quick enough for a minute. */
const FIRST_MOVE_LIMIT = 32e6;
const KILL_AT = 0.4;

interface Site {
  readonly hostId: string;
  readonly dataDir: string;
  readonly address: string;
  readonly port: number;
}

export async function runDemo(options: DemoOptions): Promise<void> {
  const { keep, output, signal } = options;
  const startedAt = Date.now();
  const folder = await mkdtemp(join(tmpdir(), 'dwcp-demo-'));
  const trust = TrustFolder.make(join(folder, 'trust'));
  const children = new Children(join(folder, 'logs'), {
    DWCP_TRUST_DIR: trust.path,
    DWCP_CONTROL_AUDIT_DIR: join(folder, 'control'),
  });
  let kept = false;
  const stopping = async (): Promise<void> => {
    await children.stopAll();
    killGuestsNaming([folder]);
    if (!kept) rmSync(folder, { recursive: true, force: true });
  };
  const interrupted = new Promise<never>((_, reject) =>
    onAbort(signal, () => reject(new DwcpError('CANCELLED', 'Interrupted; everything is stopped and removed'))),
  );
  interrupted.catch(() => undefined);
  try {
    const demo = new Demo(folder, children, options);
    const { legs, guest } = await Promise.race([demo.run(), interrupted]);
    const ok = legs.every((leg) => leg.equal) && guest.every(({ bad }) => bad.length === 0);
    kept = keep && ok;
    output.emit(
      {
        event: 'demo',
        ok,
        seconds: (Date.now() - startedAt) / 1000,
        legs: legs.map(({ name, result, equal }) => ({ name, equal, ...result })),
        guest,
        temporalUi: demo.uiAddress,
      },
      () =>
        `${legsText(legs)}\n${guest.length > 0 ? `${guestSummary(guest)}\n` : ''}${demo.whereToLook(keep)}\n` +
        `${ok ? 'ok' : 'NOT EQUAL'}: ${formatDuration(Date.now() - startedAt)}`,
    );
    if (!ok) throw new DwcpError('INTEGRITY_MISMATCH', 'An image differs after its move');
    if (keep) {
      output.say(`running until Ctrl-C; data and logs are in ${folder}`);
      kept = false;
      await interrupted;
    }
  } finally {
    await stopping();
  }
}

interface ControlPlane {
  readonly env: Readonly<Record<string, string>>;
  readonly client: Client;
  readonly orchestrator: Orchestrator;
}

class Demo {
  readonly #folder: string;
  readonly #children: Children;
  readonly #output: Output;
  readonly #diskBytes: number;
  readonly #payloadKeyFile: string;
  #control: ControlPlane | undefined;
  uiAddress: string | undefined;

  constructor(folder: string, children: Children, { output, diskBytes, payloadKeyFile }: DemoOptions) {
    this.#folder = folder;
    this.#children = children;
    this.#output = output;
    this.#diskBytes = diskBytes;
    this.#payloadKeyFile = payloadKeyFile;
  }

  async run(): Promise<{ legs: Leg[]; guest: GuestLeg[] }> {
    const [a, b] = await this.#sites();
    this.#control = await this.#startControlPlane();
    const agents = { a: this.#startAgent(a), b: this.#startAgent(b) };
    const images = await this.#makeVm(a);
    const before = await this.#hashes(images);

    this.#say(`moving ${VM} from ${a.hostId} to ${b.hostId}; its agent will be killed at ${KILL_AT * 100} %`);
    const first = await this.#plane.orchestrator.migrateVm(VM, a.hostId, b.hostId, {
      bandwidthLimit: FIRST_MOVE_LIMIT,
    });
    await this.#killInTheMiddle(first, a, agents.a.process.pid);
    const moved = await this.#result(first);
    const arrived = this.#imagesOn(b);
    const cold = { name: `${a.hostId} → ${b.hostId}`, result: moved, equal: same(before, await this.#hashes(arrived)) };
    await this.#keptCopies(first);

    changePart(this.#diskBytes, arrived);
    const changed = await this.#hashes(arrived);
    this.#say(`changed part of it on ${b.hostId}; moving it back onto the baseline that ${a.hostId} has kept`);
    const second = await this.#plane.orchestrator.migrateVm(VM, b.hostId, a.hostId, { bandwidthLimit: 0 });
    const returned = await this.#result(second);
    const warm = {
      name: `${b.hostId} → ${a.hostId}`,
      result: returned,
      equal: same(changed, await this.#hashes(images)),
    };
    const guest = await this.#moveGuest(a, b);
    await this.#plane.client.connection.close();
    return { legs: [cold, warm], guest };
  }

  /** A guest that runs, where QEMU is there or can be had. */
  async #moveGuest(a: Site, b: Site): Promise<GuestLeg[]> {
    if (!ensureQemu((line) => this.#say(line))) {
      this.#say(`no guest is moved while it runs: QEMU 10 or newer is missing; sudo ${QEMU_INSTALL_LINE}`);
      return [];
    }
    return new GuestDemo(this.#folder, this.#children, this.#plane.env, this.#plane.orchestrator, this.#output).run(
      a,
      b,
    );
  }

  whereToLook(keep: boolean): string {
    if (this.uiAddress === undefined) return '';
    const url = `${this.uiAddress}/namespaces/default/workflows/${migrationWorkflowId(VM)}`;
    return keep
      ? `Temporal UI: ${url}`
      : `Temporal UI: \`npm run demo -- --keep\` leaves it running and prints its address`;
  }

  async #sites(): Promise<[Site, Site]> {
    const second = await isFreePort('127.0.0.2', 9876);
    const portA = (await isFreePort('127.0.0.1', 9876)) ? 9876 : await freePort();
    const site = (hostId: string, address: string, port: number): Site => ({
      hostId,
      dataDir: join(this.#folder, hostId),
      address,
      port,
    });
    return [
      site('host-a', '127.0.0.1', portA),
      second ? site('host-b', '127.0.0.2', 9876) : site('host-b', '127.0.0.1', await freePort()),
    ];
  }

  get #plane(): ControlPlane {
    if (!this.#control) throw new DwcpError('INTERNAL', 'The control plane has not been started');
    return this.#control;
  }

  async #startControlPlane(): Promise<ControlPlane> {
    const address = process.env.TEMPORAL_ADDRESS || (await this.#startServer());
    const env = {
      TEMPORAL_ADDRESS: address,
      DWCP_GUEST_FOLDERS: this.#folder,
      DWCP_PAYLOAD_KEY_FILE: this.#payloadKeyFile,
    };
    this.#children.startDwcp('control', ['control'], env);
    const dataConverter = payloadConverter(this.#payloadKeyFile);
    const client = new Client({ connection: await Connection.connect({ address }), dataConverter });
    return { env, client, orchestrator: await createOrchestrator({ client, trustDir: join(this.#folder, 'trust') }) };
  }

  async #startServer(): Promise<string> {
    const server = await startEmbeddedServer({ dbFile: join(this.#folder, 'temporal.sqlite') }, (line) =>
      this.#say(line),
    );
    this.#children.adopt('temporal', server.process, '');
    this.uiAddress = server.uiAddress;
    this.#say(`Temporal server at ${server.address}, its UI at ${server.uiAddress ?? '-'}`);
    return server.address;
  }

  #startAgent(site: Site): ReturnType<Children['startDwcp']> {
    this.#say(`agent ${site.hostId} on ${site.address}:${site.port}`);
    return this.#children.startDwcp(
      site.hostId,
      [
        'agent',
        '--host-id',
        site.hostId,
        '--data-dir',
        site.dataDir,
        '--listen-address',
        site.address,
        '--port',
        String(site.port),
      ],
      this.#plane.env,
    );
  }

  async #makeVm(site: Site): Promise<Record<string, string>> {
    const folder = join(this.#folder, 'vms-a');
    await mkdir(folder, { recursive: true });
    const images = { vda: join(folder, 'disk.img'), memory: join(folder, 'memory.img') };
    const mkfs = await findTool('mkfs.ext4', 'e2fsprogs', this.#children, (line) => this.#say(line));
    this.#say(
      `making a VM: ${formatBytes(this.#diskBytes)} of ext4 with files of this machine, ${formatBytes(MEMORY_BYTES)} of memory`,
    );
    await makeDiskImage(images.vda, this.#diskBytes, this.#children, mkfs);
    dumpOwnMemory(images.memory, MEMORY_BYTES);
    const define = this.#children.startDwcp(
      'define',
      [
        'vm',
        'define',
        VM,
        '--disk',
        `vda=${images.vda}`,
        '--memory',
        `memory=${images.memory}`,
        '--data-dir',
        site.dataDir,
      ],
      this.#plane.env,
    );
    if ((await define.ended) !== 0) throw new DwcpError('INTERNAL', `dwcp vm define failed; see ${define.logFile}`);
    return images;
  }

  #imagesOn(site: Site): Record<string, string> {
    const path = (imageId: string): string => join(site.dataDir, 'images', VM, `${imageId}.img`);
    return { vda: path('vda'), memory: path('memory') };
  }

  async #killInTheMiddle(migrationId: string, site: Site, pid: number | undefined): Promise<void> {
    let last = '';
    for (;;) {
      const { live, state } = await this.#plane.orchestrator.getMigrationStatus(migrationId);
      if (state !== 'running') {
        this.#say('it was done before the agent could be killed');
        return;
      }
      const disk = live.find((image) => image.imageId === 'vda');
      const share = disk ? disk.doneBytes / disk.totalBytes : 0;
      const line = disk
        ? `vda ${(100 * share).toFixed(0)} %, ${formatBitRate(disk.bytesPerSecond)}, ${disk.streams} streams`
        : '';
      if (line !== last && line !== '') this.#progress((last = line), { image: 'vda', share });
      if (share >= KILL_AT && pid !== undefined) {
        process.kill(pid, 'SIGKILL');
        this.#output.emit(
          { event: 'killed', host: site.hostId, share },
          () => `  SIGKILL for the agent of ${site.hostId} at ${(100 * share).toFixed(0)} %; starting it again`,
        );
        await wait(500);
        this.#startAgent(site);
        return;
      }
      await wait(150);
    }
  }

  async #result(migrationId: string): Promise<MigrationResult> {
    let shown = '';
    let resumedAt: number | undefined;
    for (;;) {
      const status = await this.#plane.orchestrator.getMigrationStatus(migrationId);
      if (status.state === 'completed' && status.result) return status.result;
      if (status.state !== 'running')
        throw status.error ?? new DwcpError('MIGRATION_FAILED', `ended as ${status.state}`);
      const image = status.live.at(-1);
      const share = image ? image.doneBytes / image.totalBytes : 0;
      const line = image ? `${image.imageId} ${(100 * share).toFixed(0)} %` : '';
      if (line !== '' && line !== shown) {
        if (resumedAt === undefined) resumedAt = share;
        this.#progress((shown = line), { image: image?.imageId, share });
      }
      await wait(300);
    }
  }

  /** The copy for deltas is made behind the migration's back; the way back waits for it here, so that it shows. */
  async #keptCopies(migrationId: string): Promise<void> {
    const copies: unknown = await this.#plane.client.workflow
      .getHandle(keepBaselinesWorkflowId(migrationId))
      .result()
      .catch(() => []);
    this.#output.emit({ event: 'copies', copies }, () => `  copies kept for deltas: ${JSON.stringify(copies)}`);
  }

  async #hashes(images: Record<string, string>): Promise<string[]> {
    return Promise.all(Object.values(images).map(sha256OfFile));
  }

  #say(line: string): void {
    this.#output.say(line);
  }

  #progress(line: string, object: Record<string, unknown>): void {
    this.#output.emit({ event: 'progress', ...object }, () => `  ${line}`);
  }
}

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((hash, index) => hash === b[index]);
}
