/**
 * The whole simulated world of one seed: two hosts with their agents, the link, Temporal with its control worker, and one VM.
 * What goes wrong in it is scenario.ts's, what may never be is invariants.ts's.
 */
import { createControlActivities } from '../../activities';
import { ownArguments } from '../../src/hypervisor/qemu/guest-command';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { CONTROL_QUEUE, migrationWorkflowId } from '../../src/model/names';
import { SimAgent } from './agent';
import { diskOffset, type Truth } from './guest';
import { SimHost } from './host';
import { Life } from './life';
import { type Globals, type Program, SHADOWED } from './loader';
import type { SimQemu } from './qemu';
import { type SchedulerOptions, SimScheduler } from './scheduler';
import { Network } from './sim-link';
import { createSimTemporal, type SimTemporal, type SimWorkflowHandle } from './temporal/sim-temporal';

export const VM_ID = 'vm';
const BLOCK_BYTES = 64 * 1024;

export type HostName = 'a' | 'b';

export interface VmLook {
  readonly running: boolean;
  readonly diskBlocks: number;
}

export class World {
  readonly scheduler: SimScheduler;
  readonly network: Network;
  readonly hosts: Readonly<Record<HostName, SimHost>>;
  readonly agents: Record<HostName, SimAgent | undefined> = { a: undefined, b: undefined };
  readonly temporal: SimTemporal;
  readonly truth: Truth = { last: { count: 1, position: 0 }, lost: false };
  readonly vm: VmLook;
  /** Its disk as it was installed. */
  readonly original: Buffer | undefined;
  control: Life;
  /** Told of every change of what a QEMU does. */
  onQemu: (qemu: SimQemu, how: string) => void = () => undefined;
  readonly #program: Program;
  readonly #restartMs: Record<HostName, number | undefined> = { a: undefined, b: undefined };
  #migrations = 0;

  constructor(seed: number, program: Program, vm: VmLook, options?: SchedulerOptions) {
    this.#program = program;
    this.vm = vm;
    this.original = vm.diskBlocks > 0 ? contentOf(vm.diskBlocks) : undefined;
    this.scheduler = new SimScheduler(seed, options);
    const { scheduler } = this;
    this.network = new Network(scheduler, scheduler.pick([0.4, 5, 40]));
    const watch = { qemuChanged: (qemu: SimQemu, how: string): void => this.#qemuChanged(qemu, how) };
    this.hosts = {
      a: new SimHost('a', scheduler, this.network, watch, () => this.truth),
      b: new SimHost('b', scheduler, this.network, watch, () => this.truth),
    };
    for (const host of [this.hosts.a, this.hosts.b]) host.disk.keepsOwnNames = scheduler.random() < 0.5;
    this.temporal = createSimTemporal(scheduler, (modules) => this.#workflows(modules));
    this.control = this.#startControl();
    this.#placeVm();
  }

  get qemus(): SimQemu[] {
    return [...this.hosts.a.qemus, ...this.hosts.b.qemus];
  }

  startAgent(name: HostName): void {
    const host = this.hosts[name];
    if (this.agents[name]?.life.alive) return;
    this.scheduler.trace(`the agent of ${name} starts`);
    this.agents[name] = new SimAgent(host, {
      program: this.#program,
      temporal: this.temporal,
      log: (_, level, fields, text) => this.#log(name, level, fields, text),
      failed: (_, error) =>
        this.scheduler.trace(`the agent of ${name} ends: ${error instanceof Error ? error.message : String(error)}`),
    });
    this.agents[name].life.onEnd(() => {
      const delayMs = this.#restartMs[name] ?? 500 + 4_000 * this.scheduler.random();
      this.#restartMs[name] = undefined;
      this.scheduler.post(undefined, `the supervisor of ${name}`, () => this.startAgent(name), delayMs);
    });
  }

  /** @param awayMs until it is started again */
  killAgent(name: HostName, awayMs: number): void {
    this.scheduler.trace(`the agent of ${name} is killed, and is away for ${Math.round(awayMs)} ms`);
    this.#restartMs[name] = awayMs;
    this.agents[name]?.life.kill();
  }

  crashHost(name: HostName, awayMs: number): void {
    this.scheduler.trace(`host ${name} crashes, and is away for ${Math.round(awayMs)} ms`);
    this.#restartMs[name] = awayMs;
    if (this.hosts[name].qemus.some((qemu) => this.#holdsTheGuest(qemu))) this.truth.lost = true;
    this.hosts[name].crash();
  }

  killQemu(qemu: SimQemu): void {
    this.scheduler.trace(`the QEMU on ${qemu.hostName} is killed`);
    if (this.#holdsTheGuest(qemu)) this.truth.lost = true;
    qemu.life.kill();
  }

  migrate(source: HostName, destination: HostName): SimWorkflowHandle {
    this.#migrations += 1;
    const migrationId = `m${this.#migrations}`;
    return this.temporal.startWorkflow('migrateVm', migrationWorkflowId(VM_ID), [
      {
        vmId: VM_ID,
        sourceHost: source,
        destinationHost: destination,
        migrationId,
        options: { enableFallback: false },
      },
    ]);
  }

  get workflow(): SimWorkflowHandle | undefined {
    return this.temporal.find(migrationWorkflowId(VM_ID));
  }

  /** Whether a migration of the VM has arrived, whatever became of the next one. */
  get hasArrived(): boolean {
    return this.temporal.runsOf(migrationWorkflowId(VM_ID)).some(({ status }) => status === 'COMPLETED');
  }

  restartControl(): void {
    const old = this.control;
    this.control = this.#startControl();
    old.kill();
  }

  /** A QEMU that the guest may be lost with: it has it, or is about to start it. */
  #holdsTheGuest(qemu: SimQemu): boolean {
    return qemu.state === 'prelaunch' ? !qemu.command.includes('-S') : qemu.state !== 'inmigrate';
  }

  #qemuChanged(qemu: SimQemu, how: string): void {
    if (this.scheduler.traced) this.scheduler.trace(`the QEMU on ${qemu.hostName} ${how} (${qemu.state})`);
    this.onQemu(qemu, how);
  }

  #log(name: HostName, level: string, fields: unknown, text: string): void {
    if (!this.scheduler.traced) return;
    this.scheduler.trace(`agent ${name} ${level}: ${text} ${JSON.stringify(fields)}`.slice(0, 600));
  }

  #startControl(): Life {
    const life = new Life('control', 1, this.scheduler);
    this.temporal.registerWorker(
      life,
      CONTROL_QUEUE,
      createControlActivities(
        () => undefined,
        () => Promise.resolve(['a', 'b']),
        () => Promise.resolve({ expiresAtMs: Number.MAX_SAFE_INTEGER }),
      ),
    );
    return life;
  }

  #workflows(modules: Readonly<Record<string, object>>): object {
    const nowMs = (): number => this.temporal.workflowNowMs;
    class WorkflowDate extends Date {
      constructor(...args: readonly unknown[]) {
        super(...((args.length === 0 ? [nowMs()] : args) as [number]));
      }

      static override now(): number {
        return nowMs();
      }
    }
    const forbidden = (): never => {
      throw new Error('A workflow has no timers but Temporal’s');
    };
    const globals = {
      ...Object.fromEntries(SHADOWED.map((name) => [name, forbidden])),
      Date: WorkflowDate,
      process,
      performance,
    } as unknown as Globals;
    const load = this.#program.start(globals, (name) => modules[name]);
    return load('workflows/index');
  }

  #placeVm(): void {
    const { running, diskBlocks } = this.vm;
    const host = this.hosts.a;
    const life = host.start('installer', []);
    const files = host.files(life);
    const write = (path: string, content: Buffer): void => {
      files.makeFolder(path.slice(0, path.lastIndexOf('/')), true);
      const fd = files.open(path, 'w');
      files.write(fd, content, 0, content.length, 0);
      files.sync(fd);
      files.close(fd);
      for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1))
        host.disk.sync(files.get(path.slice(0, at), 'open'));
      host.disk.sync(host.disk.root);
    };
    const disk = '/vms/vm/disk.img';
    if (this.original) write(disk, this.original);
    const places = runPlaces(`${host.dataDir}/run/${VM_ID}`);
    const command = [
      'qemu-system-x86_64',
      '-machine',
      'q35',
      '-m',
      '128K',
      ...(diskBlocks > 0 ? ['-drive', `file=${disk},format=raw,if=ide`] : []),
    ];
    const images = diskBlocks > 0 ? [{ imageId: 'vda', kind: 'disk', path: disk }] : [];
    write(
      `${host.dataDir}/vms/${VM_ID}.json`,
      Buffer.from(
        JSON.stringify({
          vmId: VM_ID,
          images,
          presence: 'here',
          generation: 0,
          guest: { command, qmpPath: places.qmpPath },
        }),
      ),
    );
    const there = this.hosts.b.files(this.hosts.b.start('installer', []));
    there.makeFolder(this.hosts.b.dataDir, true);
    for (const path of ['/', '/var', this.hosts.b.dataDir]) this.hosts.b.disk.sync(there.get(path, 'open'));
    if (!running) return;
    files.makeFolder(`${host.dataDir}/run/${VM_ID}`, true);
    host.startQemu([...command, ...ownArguments(places, 'run')], () => undefined);
  }
}

/** A disk as a guest that has counted that far has left it; the rest of each block is of its own. */
function contentOf(blocks: number): Buffer {
  const content = Buffer.alloc(blocks * BLOCK_BYTES);
  for (let block = 0; block < blocks; block += 1)
    if (block % 3 !== 2) content.fill(`block ${block} `, diskOffset(block) + 8 * 1024, diskOffset(block) + 9 * 1024);
  return content;
}
