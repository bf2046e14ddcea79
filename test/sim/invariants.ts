/**
 * What may never be, looked at after each step, and what must be in the end. It sees what nobody in the simulated world sees: all
 * QEMUs, both hosts' files as they are, and where the guest truly was.
 */
import type { Inode } from './disk-model';
import type { SimHost } from './host';
import type { SimQemu } from './qemu';
import { type HostName, VM_ID, type World } from './world';

export interface Violation {
  readonly kind: string;
  readonly text: string;
}

interface Entry {
  readonly state: string;
  readonly migrationId: string;
}

interface JournalSeen {
  generation: number;
  readonly node: Inode | undefined;
  readonly version: number;
  readonly entries: readonly Entry[];
}

/** By the last line of a journal, the VM is that host's. */
const OWNS = new Set(['claimed', 'rolling_back', 'rolled_back', 'mine', 'installed']);
/** Something of a migration is left to do. */
const OPEN = new Set(['claimed', 'handed_over', 'promised', 'mine', 'releasing', 'rolling_back']);
const LOOK_AT_IMAGES_EVERY = 8;

export class Invariants {
  violation: Violation | undefined;
  /** An operator has said that two copies may run. */
  twoAccepted = false;
  /** Told when a journal has a new line. */
  onJournal: (host: HostName, entry: Entry) => void = () => undefined;
  readonly #world: World;
  readonly #journals: Record<HostName, JournalSeen> = {
    a: { generation: -1, node: undefined, version: -1, entries: [] },
    b: { generation: -1, node: undefined, version: -1, entries: [] },
  };
  #looks = 0;

  constructor(world: World) {
    this.#world = world;
    world.scheduler.onUncaught = (error) =>
      this.#found(
        'a process dies of an error',
        `${world.scheduler.current?.owner?.name ?? 'nobody'} in "${world.scheduler.current?.label ?? ''}": ${textOf(error)}`,
      );
  }

  /** Of a promise that nobody listens to: Node ends such a process. */
  unhandled(error: unknown): void {
    this.#found(
      'a process dies of a rejection that nobody handles',
      `${this.#world.scheduler.current?.owner?.name ?? 'nobody'} behind "${this.#world.scheduler.current?.label ?? ''}": ${textOf(error)}`,
    );
  }

  /** A QEMU has changed what it does. */
  qemuChanged(qemu: SimQemu, how: string): void {
    if (qemu.state !== 'running' || this.twoAccepted) return;
    if (this.#world.qemus.filter(({ running }) => running).length > 1)
      this.#found('two copies run', `on ${qemu.hostName} it ${how} while it runs on the other host`);
    const flaw = how === 'starts' ? undefined : qemu.flaw();
    if (flaw !== undefined) this.#found('a wrong guest runs', `on ${qemu.hostName} it ${how}, and ${flaw}`);
  }

  afterStep(): void {
    for (const name of ['a', 'b'] as const) this.#readJournal(name);
    this.#looks += 1;
    if (this.#looks % LOOK_AT_IMAGES_EVERY === 0)
      for (const qemu of this.#world.qemus) if (qemu.running) this.#lookAtImages(qemu);
  }

  last(name: HostName): Entry | undefined {
    return this.#journals[name].entries.at(-1);
  }

  /** @returns what is left to be done or is wrong, now that nothing disturbs any more; undefined where all is settled */
  unsettled(): string | undefined {
    const { workflow, temporal, qemus, truth, vm } = this.#world;
    if (workflow?.status === 'RUNNING')
      return `the workflow is open${workflow.parked ? ' (parked)' : ''}: ${workflow.details.split('\n')[0] ?? ''}`;
    if (temporal.running.length > 0) return 'activities still run';
    const running = qemus.filter((qemu) => qemu.running);
    if (vm.running && running.length === 0 && !truth.lost) return 'nobody runs the guest';
    // Where it lives, and which of two is to go, is for the operator who has accepted that.
    if (this.twoAccepted) return undefined;
    const idle = qemus.find((qemu) => !qemu.running);
    if (idle) return `a QEMU on ${idle.hostName} is left, ${idle.state}`;
    for (const name of ['a', 'b'] as const) {
      const last = this.last(name);
      if (last && OPEN.has(last.state)) return `the journal of ${name} is left at ${last.state}`;
      const left = namesIn(this.#world.hosts[name], 'incoming');
      if (left.length > 0) return `${name} keeps a record of ${left.join(', ')}`;
      const outgoing = namesIn(this.#world.hosts[name], 'outgoing').filter((file) => file.endsWith('.json'));
      if (outgoing.length > 0) return `${name} keeps what was handed over: ${outgoing.join(', ')}`;
    }
    return this.#placeFlaw(running[0]);
  }

  #placeFlaw(running: SimQemu | undefined): string | undefined {
    const { hosts } = this.#world;
    const here = (['a', 'b'] as const).filter((name) => registryOf(hosts[name])?.presence === 'here');
    if (here.length !== 1) return `the VM is registered as being ${here.length === 0 ? 'nowhere' : 'on both hosts'}`;
    const owner = here[0] as HostName;
    if (running && running.hostName !== owner) return `it runs on ${running.hostName} and is registered on ${owner}`;
    const record = registryOf(hosts[owner]);
    for (const { imageId, path } of record?.images ?? []) {
      if (imageId === 'memory') continue;
      const node = find(hosts[owner], path);
      if (!node) return `its disk is not at its place on ${owner}`;
      if (find(hosts[owner], `${path}.dwcp-baseline`) === node)
        return `its disk on ${owner} is a baseline that may be removed`;
      if (!this.#world.vm.running && !this.#isOriginal(hosts[owner], node))
        return `its disk on ${owner} is not what it was`;
    }
    return undefined;
  }

  #isOriginal(host: SimHost, node: Inode): boolean {
    const original = this.#world.original;
    if (!original || node.now.size !== original.length) return !original;
    const bytes = Buffer.alloc(original.length);
    host.disk.read(node, bytes, 0);
    return bytes.equals(original);
  }

  #readJournal(name: HostName): void {
    const host = this.#world.hosts[name];
    const known = this.#journals[name];
    const { generation } = host.disk;
    if (generation === known.generation) return;
    known.generation = generation;
    const node = find(host, `${host.dataDir}/ownership/${VM_ID}.journal`);
    if (node === known.node && node?.version === known.version) return;
    const before = known.entries.length;
    this.#journals[name] = {
      generation,
      node,
      version: node?.version ?? -1,
      entries: node ? entriesOf(host, node) : [],
    };
    const { entries } = this.#journals[name];
    for (const entry of entries.slice(before)) {
      this.#world.scheduler.trace(`the journal of ${name} says ${entry.state} (${entry.migrationId})`);
      this.onJournal(name, entry);
    }
    this.#judgeJournals(entries);
  }

  #judgeJournals(entries: readonly Entry[]): void {
    const [a, b] = [this.last('a'), this.last('b')];
    // A VM that no journal knows of is where it was installed.
    const owns = (name: HostName, entry: Entry | undefined): boolean => (entry ? OWNS.has(entry.state) : name === 'a');
    if (!this.twoAccepted && owns('a', a) && owns('b', b))
      this.#found(
        'both journals say mine',
        `a: ${a?.state ?? 'nothing'} (${a?.migrationId ?? ''}), b: ${b?.state ?? 'nothing'} (${b?.migrationId ?? ''})`,
      );
    const broken = entries.find(
      ({ state, migrationId }, index) =>
        state === 'abandoned' &&
        entries
          .slice(index)
          .some(
            (later) => later.migrationId === migrationId && (later.state === 'mine' || later.state === 'installed'),
          ),
    );
    if (broken) this.#found('a promise is broken', `migration ${broken.migrationId} was abandoned and taken over`);
  }

  #lookAtImages(qemu: SimQemu): void {
    if (!qemu.disk) return;
    const host = this.#world.hosts[qemu.hostName as HostName];
    const { path, node } = qemu.disk;
    if (find(host, path) !== node)
      this.#found(
        'an image of the owner is gone',
        `the disk of the guest that runs on ${qemu.hostName} is not at ${path} any more`,
      );
    else if (find(host, `${path}.dwcp-baseline`) === node)
      this.#found('an image of the owner is a baseline', `${path} on ${qemu.hostName}`);
  }

  #found(kind: string, text: string): void {
    if (this.violation) return;
    this.#world.scheduler.trace(`VIOLATION ${kind}: ${text}`);
    this.violation = { kind, text };
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message).split('\n').slice(0, 6).join(' | ') : String(error);
}

export function find(host: SimHost, path: string): Inode | undefined {
  let node: Inode | undefined = host.disk.root;
  for (const name of path.split('/')) {
    if (name === '') continue;
    node = node?.entries.get(name);
  }
  return node;
}

function namesIn(host: SimHost, folder: string): string[] {
  return [...(find(host, `${host.dataDir}/${folder}`)?.entries.keys() ?? [])];
}

function textIn(host: SimHost, node: Inode): string {
  const bytes = Buffer.alloc(node.now.size);
  host.disk.read(node, bytes, 0);
  return bytes.toString('utf8');
}

function entriesOf(host: SimHost, node: Inode): Entry[] {
  return textIn(host, node)
    .split('\n')
    .flatMap((line) => (line.includes('{') ? [JSON.parse(line.slice(line.indexOf('{'))) as Entry] : []));
}

interface RegistryRecord {
  readonly presence: string;
  readonly images: readonly { readonly imageId: string; readonly path: string }[];
}

/** @returns undefined also where nobody could read it: what is torn says nothing */
export function registryOf(host: SimHost): RegistryRecord | undefined {
  const node = find(host, `${host.dataDir}/vms/${VM_ID}.json`);
  try {
    return node && (JSON.parse(textIn(host, node)) as RegistryRecord);
  } catch {
    return undefined;
  }
}
