/**
 * A guest on a lab's host a, watched from outside, about to be moved to b: what the crash matrix and the stories of the
 * hand-over play on. It says how such a move ended, and checks what has to hold however it ended.
 */
import { randomUUID } from 'node:crypto';
import { temporal } from '@temporalio/proto';
import type { WorkflowExecutionDescription, WorkflowHandle } from '@temporalio/client';
import type { MigrateOptions } from '../../src/control/orchestrator';
import { hasCode } from '../../src/model/errors';
import { type MigrationProgress, migrationProgressSchema } from '../../src/model/migration';
import { MESSAGES, migrationWorkflowId } from '../../src/model/names';
import { isOpenState } from '../../src/model/ownership-machine';
import { OwnershipJournal } from '../../src/store/ownership-journal';
import { VmRegistry } from '../../src/store/vm-registry';
import type { Outcome } from './crash-matrix';
import { killGuests, lookAt, startGuestOn } from './guest-lab';
import { GuestWatch, type Side } from './guest-watch';
import type { HostDisk } from './host-disks';
import { Lab, type LabHost } from './lab';
import { Relay } from './proxy';
import { type CountingGuest, expectOnePass } from './qemu';
import { after, until } from './waiting';

export interface SceneOptions {
  readonly guest: CountingGuest;
  readonly vmId: string;
  /** Disks of a host's own; else both lie in the lab's folder. */
  readonly disks?: Readonly<Partial<Record<Side, HostDisk | undefined>>>;
}


const SETTLED_MS = 90_000;
const POLL_MS = 100;
const LAST_LINES = 25;

export class Scene {
  readonly lab: Lab;
  readonly relay: Relay;
  readonly watch: GuestWatch;
  readonly vmId: string;
  readonly guest: CountingGuest;
  readonly disks: Readonly<Partial<Record<Side, HostDisk | undefined>>>;
  readonly startedAtMs = Date.now();
  #migrations = 0;
  #countBefore = 0;
  #ended = false;

  /** Agent b is reached at 127.0.0.2 through a relay to where it listens. */
  static async start({ guest, vmId, disks = {} }: SceneOptions): Promise<Scene> {
    const lab = await Lab.start({
      own: true, bArgs: ['--advertise-address', '127.0.0.2'], aDataDir: disks.source?.folder, bDataDir: disks.destination?.folder,
      ...(disks.source && { vmsFolder: `${disks.source.folder}/vms` }),
    });
    const relay = new Relay({ host: '127.0.0.2', port: lab.b.port }, { host: '127.0.0.1', port: lab.b.port });
    await relay.listen();
    const scene = new Scene(lab, relay, vmId, guest, disks);
    await startGuestOn(lab, vmId, guest, false);
    await until(20_000, 'the guest counts', async () => (scene.#countBefore = await scene.watch.countAt('source').catch(() => 0)) > 1);
    return scene;
  }

  private constructor(lab: Lab, relay: Relay, vmId: string, guest: CountingGuest, disks: SceneOptions['disks'] = {}) {
    this.lab = lab;
    this.relay = relay;
    this.vmId = vmId;
    this.guest = guest;
    this.disks = disks;
    this.watch = new GuestWatch(vmId, lab.a, lab.b);
  }

  hostOf(side: Side): LabHost {
    return side === 'source' ? this.lab.a : this.lab.b;
  }

  /** Starts a migration. The first is the one whose states the watch follows. @throws MIGRATION_IN_PROGRESS */
  async migrate(options: MigrateOptions = {}): Promise<string> {
    this.#migrations += 1;
    const migrationId = `m-${this.vmId}-${this.#migrations}`;
    if (this.#migrations === 1) this.watch.migrationId = migrationId;
    this.watch.note(`migrate ${migrationId}`);
    return this.lab.migrate(this.vmId, { migrationId, ...options });
  }

  /** Starts a migration as soon as the one before has let go of the VM. */
  async migrateAtOnce(options: MigrateOptions = {}): Promise<string> {
    for (const deadline = Date.now() + 60_000; ; await after(20)) {
      try {
        return await this.migrate(options);
      } catch (error) {
        if (!hasCode(error, 'MIGRATION_IN_PROGRESS') || Date.now() > deadline) throw error;
      }
    }
  }

  /** The newest run of the VM's workflow, by whatever migration. */
  async run(): Promise<{ readonly handle: WorkflowHandle; readonly description: WorkflowExecutionDescription }> {
    const workflowId = migrationWorkflowId(this.vmId);
    const description = await this.lab.client.workflow.getHandle(workflowId).describe();
    return { description, handle: this.lab.client.workflow.getHandle(workflowId, description.runId) };
  }

  async progress(): Promise<MigrationProgress | undefined> {
    const { handle } = await this.run();
    return handle.query<unknown>(MESSAGES.progressQuery).then((value) => migrationProgressSchema.parse(value), () => undefined);
  }

  /** As an operator resets a workflow: to its first workflow task. */
  async resetWorkflow(): Promise<void> {
    const { handle, description: { runId, workflowId } } = await this.run();
    const { events } = await handle.fetchHistory();
    const first = events?.find(({ eventType }) => eventType === temporal.api.enums.v1.EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED);
    const { workflowService, options } = this.lab.client;
    this.watch.note('reset of the workflow');
    await workflowService.resetWorkflowExecution({
      namespace: options.namespace, workflowExecution: { workflowId, runId }, reason: 'a test', requestId: randomUUID(), workflowTaskFinishEventId: first?.eventId ?? null,
    });
  }

  /** As an operator cancels; one that has ended already is left alone. */
  async cancel(): Promise<void> {
    const { handle } = await this.run();
    await handle.signal(MESSAGES.cancelSignal).catch(() => undefined);
  }

  async terminateWorkflow(): Promise<void> {
    const { handle } = await this.run();
    this.watch.note('the workflow is terminated');
    await handle.terminate('a test');
  }

  /**
   * Waits until no workflow of the VM is open and neither host has it in its hands; what parks is tried again.
   * @param cancelAfterMs what still runs by then is cancelled
   * @throws at once where two have run
   */
  async settled(cancelAfterMs = Infinity): Promise<void> {
    const startedAt = Date.now();
    let last = '';
    for (let cancelled = false; Date.now() - startedAt < SETTLED_MS; await after(POLL_MS)) {
      // What settles after two have run is of no interest.
      expect(this.watch.overlaps).toEqual([]);
      try {
        const { description: { status }, handle } = await this.run();
        const open = await Promise.all([this.lab.a, this.lab.b].map(async ({ dataDir }) => (await new OwnershipJournal(dataDir).last(this.vmId))?.state));
        const progress = status.name === 'RUNNING' ? await this.progress() : undefined;
        last = JSON.stringify({ workflow: status.name, open, phase: progress?.phase, parked: progress?.parked?.error.code });
        if (status.name !== 'RUNNING' && !open.some((state) => state !== undefined && isOpenState(state))) return;
        if (progress?.parked) await handle.executeUpdate(MESSAGES.retryStep, { args: [{}] });
        if (status.name === 'RUNNING' && !cancelled && Date.now() - startedAt > cancelAfterMs) {
          cancelled = true;
          await handle.signal(MESSAGES.cancelSignal);
        }
      } catch (error) {
        last = String(error); // The server is away for a moment.
      }
    }
    throw new Error(`the migration did not come to its end: ${last}`);
  }

  /**
   * Where the guest is, once all is settled. Whatever happened: never two ran, what runs is of one moment and not older than its
   * last pause, and one host alone calls the VM its own.
   */
  async outcome(): Promise<Outcome> {
    await after(300);
    const { watch } = this;
    expect(watch.overlaps).toEqual([]);
    const here = await this.home();
    const running = watch.running;
    if (running.length === 0) return this.#outcomeStill(here);
    expect(running).toEqual([here]);
    await this.expectRight(here);
    return here === 'source' ? 'stayed' : 'moved';
  }

  /** The one side that calls the VM its own. */
  async home(): Promise<Side> {
    const records = await Promise.all([this.lab.a, this.lab.b].map(({ dataDir }) => new VmRegistry(dataDir).find(this.vmId)));
    const sides = (['source', 'destination'] as const).filter((_, index) => records[index]?.presence === 'here');
    expect(sides).toHaveLength(1);
    return sides[0]!;
  }

  /** What is there of the guest is right, memory and disk. The watch ends. */
  async expectRight(side: Side): Promise<void> {
    this.watch.stop();
    await after(100);
    const { counts, onDisk } = await lookAt(this.hostOf(side), this.vmId, this.guest);
    const first = counts[0]!;
    this.watch.note(`${side}: counted to ${first}, ${onDisk ?? '-'} on disk; ${this.#countBefore} before, ${this.watch.countAtPause} at the last pause`);
    expectOnePass(counts);
    expect(first).toBeGreaterThanOrEqual(Math.max(this.#countBefore, this.watch.countAtPause));
    if (onDisk !== undefined) expect([first, first - 1]).toContain(onDisk);
  }

  /** What was seen from outside, and the last words of every process. */
  report(): string {
    const said = this.lab.logs().map(({ name, text }) => `--- ${name}\n${text.trimEnd().split('\n').slice(-LAST_LINES).join('\n')}`);
    return [...this.watch.log, ...said, ''].join('\n');
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.watch.stop();
    await this.relay.close();
    killGuests();
    await this.lab.stop();
    for (const disk of Object.values(this.disks)) await disk?.remove();
  }

  async #outcomeStill(here: Side): Promise<Outcome> {
    const status = await this.#statusAt(here);
    if (status === undefined) return 'lost';
    if (status !== 'paused') throw new Error(`nobody runs the guest: at the ${here} it is in state ${status}`);
    await this.watch.monitor(here).execute('cont');
    await this.expectRight(here);
    return 'held';
  }

  /** QEMU's word for it; undefined where its QEMU is gone. */
  async #statusAt(side: Side): Promise<string | undefined> {
    try {
      return (await this.watch.monitor(side).execute('query-status')).status;
    } catch {
      return undefined;
    }
  }
}
