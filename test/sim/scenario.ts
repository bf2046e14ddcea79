/**
 * What happens in a world: the migrations asked for, and the faults of its plan (plan.ts), each at its moment.
 */
import { MESSAGES } from '../../src/model/names';
import { type Invariants, registryOf } from './invariants';
import { type Plan, type PlannedFault, TEMPORAL_FAULTS } from './plan';
import type { SimQemu } from './qemu';
import type { HostName, World } from './world';

/** An operator who knows the risk takes it that often. */
const TAKES_THE_RISK = 0.15;
const CLOCK_JUMPS_MS = [-7_200_000, -60_000, -2_000, 2_000, 60_000, 7_200_000];

/** Carries a plan out beside the steps of a world. */
export class Course {
  readonly #world: World;
  readonly #plan: Plan;
  readonly #invariants: Invariants;
  readonly #counts = { step: 0, qemu: 0, journal: 0 };
  #due: { readonly step: number; readonly fault: PlannedFault }[] = [];
  readonly #waiting: PlannedFault[];
  readonly #undo = new Set<() => void>();
  readonly #stopped = new Set<SimQemu>();
  #migrations = 0;
  #over = false;

  constructor(world: World, plan: Plan, invariants: Invariants) {
    this.#world = world;
    this.#plan = plan;
    this.#invariants = invariants;
    this.#waiting = [...plan.faults];
    invariants.onJournal = (_, { state }) => {
      this.#count('journal');
      this.#begin(({ at }) => at.of === 'state' && at.state === state);
    };
    world.onQemu = (qemu, how) => {
      invariants.qemuChanged(qemu, how);
      this.#count('qemu');
      if (this.#migrations > 0) this.#begin(({ at }) => at.of === 'state' && at.state === how);
    };
    Object.assign(world.temporal.faults.budget, plan.temporal);
    world.startAgent('a');
    world.startAgent('b');
    world.scheduler.post(undefined, 'a migration is asked for', () => this.#migrate('a', 'b'), 500);
    this.#operatorLooks();
  }

  /** Migrations that the plan still wants are under way or to come. */
  get isBusy(): boolean {
    const { workflow } = this.#world;
    return this.#migrations < 1 || workflow?.status === 'RUNNING' || this.#wantsSecond;
  }

  get #wantsSecond(): boolean {
    return this.#plan.second !== undefined && this.#migrations < 2;
  }

  afterStep(): void {
    this.#count('step');
    if (this.#due.length > 0) {
      const now = this.#due.filter(({ step }) => step <= this.#counts.step);
      if (now.length > 0) {
        this.#due = this.#due.filter(({ step }) => step > this.#counts.step);
        for (const { fault } of now) this.#strike(fault);
      }
    }
  }

  /** Nothing goes wrong any more, and what has been broken is mended. */
  mend(): void {
    this.#over = true;
    this.#waiting.length = 0;
    this.#due = [];
    this.#world.scheduler.trace('nothing goes wrong any more');
    for (const kind of TEMPORAL_FAULTS) this.#world.temporal.faults.budget[kind] = 0;
    for (const undo of [...this.#undo]) undo();
    this.#letGoOn();
  }

  /** From the first migration on: what happens to a VM that is being started is no matter of a hand-over. */
  #count(of: 'step' | 'qemu' | 'journal'): void {
    if (this.#migrations === 0) return;
    this.#counts[of] += 1;
    if (this.#waiting.length > 0) this.#begin(({ at }) => at.of === of && at.number === this.#counts[of]);
  }

  #begin(isTime: (fault: PlannedFault) => boolean): void {
    for (const fault of this.#waiting.filter(isTime)) {
      this.#waiting.splice(this.#waiting.indexOf(fault), 1);
      this.#due.push({ step: this.#counts.step + fault.behind, fault });
    }
  }

  #strike({ kind, host, lastsMs }: PlannedFault): void {
    const world = this.#world;
    const { scheduler } = world;
    const { qemus } = world;
    const qemu = qemus.length > 0 ? scheduler.pick(qemus) : undefined;
    switch (kind) {
      case 'agent':
        world.killAgent(host, lastsMs);
        return;
      case 'host':
        world.crashHost(host, lastsMs);
        return;
      case 'terminate':
        if (world.workflow?.status === 'RUNNING') world.workflow.terminate();
        return;
      case 'reset':
        if (world.workflow)
          world.workflow.reset(Math.floor(scheduler.random() * (world.workflow.history.length + 1)), {
            reapply: scheduler.random() < 0.8,
          });
        return;
      case 'cancel':
        if (world.workflow?.status !== 'RUNNING') return;
        if (scheduler.random() < 0.5) world.workflow.cancel();
        else world.workflow.signal(MESSAGES.cancelSignal);
        return;
      case 'apart': {
        const life = world.agents[host]?.life;
        if (!life?.alive) return;
        world.temporal.setReachable(life, false);
        this.#until(`Temporal reaches ${host} again`, lastsMs, () => world.temporal.setReachable(life, true));
        return;
      }
      case 'stall': {
        const life = world.agents[host]?.life;
        if (!life?.alive) return;
        scheduler.trace(`the agent of ${host} stands still for ${Math.round(lastsMs)} ms`);
        life.suspend();
        this.#until(`the agent of ${host} goes on`, lastsMs, () => life.resume());
        return;
      }
      case 'clock': {
        const ms = scheduler.pick(CLOCK_JUMPS_MS);
        scheduler.trace(`the clock of ${host} jumps by ${ms} ms`);
        world.hosts[host].clockOffsetMs += ms;
        return;
      }
      case 'qemu':
        if (qemu) world.killQemu(qemu);
        return;
      case 'control':
        scheduler.trace('the control worker is killed');
        world.restartControl();
        return;
      case 'cut':
        scheduler.trace(`the link is cut for ${Math.round(lastsMs)} ms`);
        world.network.cut();
        world.network.down = true;
        this.#until('the link is back', lastsMs, () => (world.network.down = false));
        return;
      case 'full':
        scheduler.trace(`the disk of ${host} is full for ${Math.round(lastsMs)} ms`);
        world.hosts[host].disk.full = true;
        this.#until(`the disk of ${host} has room again`, lastsMs, () => (world.hosts[host].disk.full = false));
        return;
      case 'freeze':
        if (!qemu) return;
        scheduler.trace(`the QEMU on ${qemu.hostName} is frozen for ${Math.round(lastsMs)} ms`);
        qemu.life.suspend();
        this.#until(`the QEMU on ${qemu.hostName} goes on`, lastsMs, () => qemu.life.resume());
        return;
      case 'stop': {
        const running = qemus.find((each) => each.running);
        if (!running) return;
        running.operator('stop');
        this.#stopped.add(running);
        this.#until(`the operator wants it to go on, on ${running.hostName}`, lastsMs, () => this.#letGoOn());
      }
    }
  }

  /** Guests that an operator has stopped; one that a migration has in hand then goes on later. */
  #letGoOn(): void {
    for (const qemu of this.#stopped) {
      if (qemu.life.alive && qemu.state !== 'paused' && qemu.state !== 'running') continue;
      this.#stopped.delete(qemu);
      if (qemu.life.alive) qemu.operator('cont');
    }
  }

  #until(what: string, ms: number, undo: () => void): void {
    const once = (): void => {
      if (!this.#undo.delete(once)) return;
      this.#world.scheduler.trace(what);
      undo();
    };
    this.#undo.add(once);
    this.#world.scheduler.post(undefined, what, once, ms);
  }

  #migrate(source: HostName, destination: HostName): void {
    this.#migrations += 1;
    this.#world.scheduler.trace(`a migration ${source} -> ${destination} is asked for`);
    this.#world.migrate(source, destination);
  }

  /** Somebody who is called when a migration waits, and who asks for the next when it is over. */
  #operatorLooks(): void {
    this.#world.scheduler.post(
      undefined,
      'an operator looks',
      () => {
        const { workflow } = this.#world;
        if (workflow?.parked) this.#answer();
        if (this.#over) this.#letGoOn();
        if (!this.#over && this.#wantsSecond && this.#migrations === 1 && workflow && workflow.status !== 'RUNNING')
          this.#second();
        this.#operatorLooks();
      },
      2_000 + 20_000 * this.#world.scheduler.random(),
    );
  }

  #answer(): void {
    const { workflow, scheduler } = this.#world;
    const [name, what] =
      scheduler.random() < 0.6 ? [MESSAGES.retryStep, 'says: try again'] : [MESSAGES.abortMigration, 'aborts it'];
    scheduler.trace(`the operator ${what}`);
    const acceptTwoCopies = name === MESSAGES.abortMigration && scheduler.random() < TAKES_THE_RISK;
    if (acceptTwoCopies) {
      scheduler.trace('and accepts that it may run twice');
      this.#invariants.twoAccepted = true;
    }
    workflow?.update(name, acceptTwoCopies ? { acceptTwoCopies } : {}).catch(() => undefined);
  }

  #second(): void {
    const { hosts } = this.#world;
    const at: HostName = registryOf(hosts.b)?.presence === 'here' ? 'b' : 'a';
    const back = this.#plan.second === 'back';
    const source = back ? at : 'a';
    this.#migrate(source, source === 'a' ? 'b' : 'a');
  }
}
