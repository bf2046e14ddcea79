/**
 * The state of a running migration as operators see it: phase, progress, parking, messages. Keeps search attributes and
 * the UI's current details true to it. The flow itself is migrate-vm.ts.
 */

import { defineSearchAttributeKey, type SearchAttributePair, SearchAttributeType } from '@temporalio/common';
import {
  allHandlersFinished,
  CancellationScope,
  condition,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { z } from 'zod';
import { describeMigration } from '../src/model/describe';
import { DwcpError } from '../src/model/errors';
import {
  abortMigrationSchema,
  type ImageProgress,
  imageProgressSchema,
  type MigrationProgress,
  type Parked,
  retryStepSchema,
  setBandwidthLimitSchema,
} from '../src/model/migration';
import type { SEARCH_ATTRIBUTES } from '../src/model/names';
import type { MigrationOptions } from '../src/model/options';
import { PHASES, type Phase } from '../src/model/phases';
import type { MigrationPlan } from '../src/model/plan';
import type { TierName } from '../src/model/tiers';
import { AbortedByOperator, failWith } from './failures';
import {
  type AbortMigration,
  abortMigrationUpdate,
  cancelSignal,
  progressQuery,
  type RetryStep,
  reportProgressSignal,
  retryStepUpdate,
  setBandwidthLimitUpdate,
} from './messages';

const KEYS = {
  VmId: defineSearchAttributeKey('VmId', SearchAttributeType.KEYWORD),
  MigrationId: defineSearchAttributeKey('MigrationId', SearchAttributeType.KEYWORD),
  SourceHost: defineSearchAttributeKey('SourceHost', SearchAttributeType.KEYWORD),
  DestinationHost: defineSearchAttributeKey('DestinationHost', SearchAttributeType.KEYWORD),
  MigrationPhase: defineSearchAttributeKey('MigrationPhase', SearchAttributeType.KEYWORD),
  MigrationMode: defineSearchAttributeKey('MigrationMode', SearchAttributeType.KEYWORD),
  NeedsOperator: defineSearchAttributeKey('NeedsOperator', SearchAttributeType.BOOL),
  MigrationPriority: defineSearchAttributeKey('MigrationPriority', SearchAttributeType.INT),
} satisfies Record<keyof typeof SEARCH_ATTRIBUTES, unknown>;

export interface MigrationIdentity {
  readonly migrationId: string;
  readonly vmId: string;
  readonly sourceHost: string;
  readonly destinationHost: string;
  readonly mode: 'migrate' | 'warm' | 'plan';
  readonly priority: number;
}

export type OperatorDecision =
  | { readonly kind: 'retry' }
  | {
      readonly kind: 'abort';
      readonly reason: string;
      readonly acceptTwoCopies: boolean;
    };

/** What an operator's messages bring about beyond the state. */
export interface OperatorMeans {
  /** Hands a new bandwidth limit to the running transfer. */
  readonly setLimit: (bytesPerSecond: number) => Promise<void>;
  /** Takes other options for what is tried again. */
  readonly change: (options: Partial<MigrationOptions>) => void;
  /** @throws a failure NOT_AUTHORISED where nobody who may takes that risk */
  readonly acceptTwoCopies: (authorisation: string | undefined) => Promise<void>;
}

export class MigrationState {
  readonly identity: MigrationIdentity;
  path: MigrationProgress['path'] = 'dwcp';
  plan: MigrationPlan | undefined;
  tier: TierName | undefined;
  pastReturn = false;
  #phase: Phase = 'start';
  #cancelRequested = false;
  #images = new Map<string, ImageProgress>();
  #parked: Parked | undefined;
  #decision: OperatorDecision | undefined;
  readonly #acceptTwoCopies: OperatorMeans['acceptTwoCopies'];

  constructor(
    identity: MigrationIdentity,
    flow: CancellationScope,
    { setLimit, change, acceptTwoCopies }: OperatorMeans,
  ) {
    this.identity = identity;
    this.#acceptTwoCopies = acceptTwoCopies;
    setHandler(progressQuery, () => this.progress, {
      description: 'Phase, progress of each image, plan, and why it waits if it does',
    });
    setHandler(reportProgressSignal, (progress) => this.#report(progress), {
      description: 'From agents: how far an image is',
    });
    setHandler(cancelSignal, () => this.#requestCancel(flow), {
      description: 'Roll back before the point of no return; behind it, complete forward',
    });
    setHandler(
      retryStepUpdate,
      (input?: RetryStep) => {
        const { note, maxDowntimeMs, autoConverge } = retryStepSchema.parse(input);
        change({
          ...(maxDowntimeMs !== undefined && { maxDowntimeMs }),
          ...(autoConverge !== undefined && { autoConverge }),
        });
        return this.#decide({ kind: 'retry' }, note);
      },
      {
        description:
          'Parked: try the step again, after what it waits for has been mended. {"maxDowntimeMs": 5000} or ' +
          '{"autoConverge": true} for a guest that does not converge',
        validator: (input?: RetryStep) => this.#assertParked(retryStepSchema.safeParse(input).success),
      },
    );
    setHandler(abortMigrationUpdate, (input?: AbortMigration) => this.#abort(abortMigrationSchema.parse(input)), {
      description:
        'Parked: give up and roll back. {"acceptTwoCopies": true} only where a hand-over is in doubt: the VM may then run twice',
      validator: (input?: AbortMigration) => this.#assertParked(abortMigrationSchema.safeParse(input).success),
    });
    setHandler(
      setBandwidthLimitUpdate,
      async (input) => {
        const { bytesPerSecond } = setBandwidthLimitSchema.parse(input);
        await setLimit(bytesPerSecond);
        return `Limit is ${bytesPerSecond === 0 ? 'off' : `${bytesPerSecond} bytes a second`}`;
      },
      {
        description: 'Change the bandwidth limit now, in bytes a second; 0 takes it off',
        validator: (input) => {
          if (!setBandwidthLimitSchema.safeParse(input).success)
            throw failWith(new DwcpError('INVALID_INPUT', 'bytesPerSecond takes a number from 0', { side: 'control' }));
        },
      },
    );
    const { vmId, migrationId, sourceHost, destinationHost, mode, priority } = identity;
    upsertSearchAttributes([
      { key: KEYS.VmId, value: vmId },
      { key: KEYS.MigrationId, value: migrationId },
      { key: KEYS.SourceHost, value: sourceHost },
      { key: KEYS.DestinationHost, value: destinationHost },
      { key: KEYS.MigrationMode, value: mode },
      { key: KEYS.MigrationPriority, value: priority },
      ...this.#attributes(),
    ]);
    this.#describe();
  }

  get progress(): MigrationProgress {
    const { migrationId, vmId, sourceHost, destinationHost } = this.identity;
    return {
      migrationId,
      vmId,
      sourceHost,
      destinationHost,
      phase: this.#phase,
      path: this.path,
      pastReturn: this.pastReturn,
      cancelRequested: this.#cancelRequested,
      images: [...this.#images.values()],
      ...(this.plan && { plan: this.plan }),
      ...(this.tier && { tier: this.tier }),
      ...(this.#parked && { parked: this.#parked }),
    };
  }

  get cancelRequested(): boolean {
    return this.#cancelRequested || CancellationScope.current().consideredCancelled;
  }

  enter(phase: Phase): void {
    this.#phase = phase;
    upsertSearchAttributes(this.#attributes());
    this.#describe();
  }

  /**
   * Waits for the operator, who retries (returns) or aborts (throws AbortedByOperator). A cancel ends the waiting too.
   * @param retryAfterMs returns by itself after this time, where the cause may pass without anybody's doing
   */
  async park(error: DwcpError, step: string, retryAfterMs?: number): Promise<void> {
    this.#parked = { error: error.report(), step, sinceMs: Date.now() };
    this.#decision = undefined;
    upsertSearchAttributes(this.#attributes());
    this.#describe();
    try {
      if (retryAfterMs === undefined) await condition(() => this.#decision !== undefined);
      else await condition(() => this.#decision !== undefined, retryAfterMs);
    } finally {
      this.#parked = undefined;
      upsertSearchAttributes(this.#attributes());
      this.#describe();
    }
    const decision = this.#takeDecision();
    if (decision?.kind === 'abort') throw new AbortedByOperator(decision.reason, decision.acceptTwoCopies);
  }

  /** Before the workflow ends: lets every message that is being handled finish. */
  async settle(): Promise<void> {
    await condition(allHandlersFinished);
  }

  #takeDecision(): OperatorDecision | undefined {
    return this.#decision;
  }

  #attributes(): SearchAttributePair[] {
    return [
      { key: KEYS.MigrationPhase, value: this.#phase },
      { key: KEYS.NeedsOperator, value: this.#parked !== undefined },
    ];
  }

  #report(progress: ImageProgress): void {
    const parsed = imageProgressSchema.safeParse(progress);
    if (!parsed.success) return;
    this.#images.set(parsed.data.imageId, parsed.data);
    this.#describe();
  }

  #requestCancel(flow: CancellationScope): void {
    this.#cancelRequested = true;
    if (PHASES[this.#phase].mayRollBack) flow.cancel();
    this.#describe();
  }

  #decide(decision: OperatorDecision, note: string | undefined): string {
    this.#decision = decision;
    return note ? `${decision.kind}: ${note}` : decision.kind;
  }

  async #abort(input: z.infer<typeof abortMigrationSchema>): Promise<string> {
    if (input.acceptTwoCopies === true) {
      await this.#acceptTwoCopies(input.authorisation);
      this.#assertParked(true);
    }
    return this.#decide(
      {
        kind: 'abort',
        reason: input.reason ?? 'aborted by the operator',
        acceptTwoCopies: input.acceptTwoCopies ?? false,
      },
      input.reason,
    );
  }

  #assertParked(inputIsValid: boolean): void {
    if (!inputIsValid)
      throw failWith(new DwcpError('INVALID_INPUT', 'The input of this update is malformed', { side: 'control' }));
    if (!this.#parked)
      throw failWith(
        new DwcpError(
          'NOT_PARKED',
          `Migration ${this.identity.migrationId} is in phase ${this.#phase} and waits for nobody`,
          { side: 'control' },
        ),
      );
  }

  #describe(): void {
    setCurrentDetails(describeMigration(this.progress, this.identity.mode, workflowInfo().workflowId));
  }
}
