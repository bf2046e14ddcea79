/**
 * Where a migration stands on one side, inside the VM's lock: what the table allows, and the line that an event writes. The
 * tables are src/model/ownership-machine.ts; what else an event does is its caller's.
 */
import { DwcpError } from '../../model/errors';
import type { Side } from '../../model/ids';
import {
  DESTINATION_TABLE,
  type DestinationEvent,
  type DestinationState,
  destinationState,
  isRefused,
  type OwnershipState,
  type Row,
  SOURCE_TABLE,
  type SourceEvent,
  type SourceState,
  sourceState,
} from '../../model/ownership-machine';
import type { OwnedVm, OwnershipDetails, OwnershipEntry } from '../../store/ownership-journal';

/** What may happen on a side. */
interface Rules<State extends string, Event extends string> {
  readonly side: Side;
  readonly table: Readonly<Record<State, Row<State, Event, string>>>;
  readonly stateOf: (state: OwnershipState | undefined) => State;
}

const SOURCE = { side: 'source', table: SOURCE_TABLE, stateOf: sourceState } as const;
const DESTINATION = { side: 'destination', table: DESTINATION_TABLE, stateOf: destinationState } as const;

class OwnStep<State extends string, Event extends string> {
  readonly vm: OwnedVm;
  readonly #migrationId: string;
  readonly #side: Side;
  readonly #table: Readonly<Record<State, Row<State, Event, string>>>;
  readonly #stateOf: (state: OwnershipState | undefined) => State;
  #entry: OwnershipEntry | undefined;

  constructor(
    vm: OwnedVm,
    migrationId: string,
    entry: OwnershipEntry | undefined,
    { side, table, stateOf }: Rules<State, Event>,
  ) {
    this.vm = vm;
    this.#migrationId = migrationId;
    this.#entry = entry;
    this.#side = side;
    this.#table = table;
    this.#stateOf = stateOf;
  }

  get entry(): OwnershipEntry | undefined {
    return this.#entry;
  }

  get state(): State {
    return this.#stateOf(this.#entry?.state);
  }

  /** @throws MIGRATION_UNKNOWN where it has written nothing yet */
  entryOrThrow(): OwnershipEntry {
    if (this.#entry) return this.#entry;
    throw new DwcpError(
      'MIGRATION_UNKNOWN',
      `Migration ${this.#migrationId} has no claim on ${this.vm.vmId} on this host`,
      { side: this.#side },
    );
  }

  /** @throws what the table refuses the event with */
  assert(event: Event): void {
    const { on, meaning } = this.#table[this.state];
    const step = on[event];
    if (isRefused(step))
      throw new DwcpError(
        step.refused,
        `Migration ${this.#migrationId} of ${this.vm.vmId} is "${this.state}" here (${meaning}): no ${event}`,
        { side: this.#side },
      );
  }

  /** Whether no other migration has written anything since. */
  async isLast(): Promise<boolean> {
    return (await this.vm.last())?.migrationId === this.#migrationId;
  }

  /** Nothing of an older migration changes what a newer one has said. @throws FENCED */
  async assertLast(): Promise<void> {
    if (!(await this.isLast()))
      throw new DwcpError('FENCED', `A newer migration of ${this.vm.vmId} has been here`, { side: this.#side });
  }

  /** Writes what an event leads to; on disk when this returns. */
  async happened(event: Event, fence: number, details: OwnershipDetails = {}): Promise<OwnershipEntry> {
    this.assert(event);
    const step = this.#table[this.state].on[event];
    if (isRefused(step)) throw new DwcpError('INTERNAL', `${event} is refused`);
    this.#entry = await this.vm.append(step.to as OwnershipState, this.#migrationId, fence, details);
    return this.#entry;
  }
}

export type SourceStep = OwnStep<SourceState, SourceEvent>;
export type DestinationStep = OwnStep<DestinationState, DestinationEvent>;

/** @param vm held: what is read here stays so until it is let go */
export async function sourceStep(vm: OwnedVm, migrationId: string): Promise<SourceStep> {
  return new OwnStep(vm, migrationId, await vm.last(migrationId), SOURCE);
}

/** @param vm as in sourceStep() */
export async function destinationStep(vm: OwnedVm, migrationId: string): Promise<DestinationStep> {
  return new OwnStep(vm, migrationId, await vm.last(migrationId), DESTINATION);
}
