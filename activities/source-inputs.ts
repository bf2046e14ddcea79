/**
 * What the source's activities are given: by the agent when it starts, and by workflows in each call; and what they find out.
 */
import type { GuestPort, LookAtMemory, StillDisk } from '../src/hypervisor/contract';
import type { ActivityResult } from '../src/model/activity-results';
import type { GuestDefinition } from '../src/model/guest';
import type { Hooks } from '../src/model/hooks';
import type { ImageProgress, ImageResult } from '../src/model/migration';
import type { OwnershipJournal } from '../src/store/ownership-journal';
import type { VmRegistry } from '../src/store/vm-registry';
import type { SourceOwnership } from '../src/sync/hand-over/source-ownership';
import type { SourceHub } from '../src/sync/source-hub';
import type { WarrantJudge } from '../src/trust/warrant-judge';
import type { AuditHeadNow } from './border';
import type { ProgressReporter } from './progress-reporter';
import type { SayWord } from './say-word';

export interface SourceDependencies {
  readonly hub: SourceHub;
  readonly ownership: SourceOwnership;
  readonly journal: OwnershipJournal;
  readonly registry: VmRegistry;
  /** @param ifMayRun lets the guest go on only where it is this host's */
  readonly connectGuest: (
    vmId: string,
    definition: GuestDefinition,
    ifMayRun: (letRunOn: () => Promise<void>) => Promise<boolean>,
  ) => Promise<GuestPort>;
  /** Has the monitor of a running guest for a look at its memory. */
  readonly lookAtMemory: (vmId: string, definition: GuestDefinition) => LookAtMemory;
  /** Reads a disk of a guest that does not run; undefined where its file is its content. */
  readonly serveStopped: (vmId: string, definition: GuestDefinition, path: string) => Promise<StillDisk | undefined>;
  readonly report: ProgressReporter;
  /** Signs what this host says of a hand-over. */
  readonly say: SayWord | undefined;
  /** What its operator has run beside a migration. */
  readonly hooks?: Pick<Hooks, 'ask'>;
  /** Undefined where nobody proves anything (insecureDataPlane). */
  readonly judge: WarrantJudge | undefined;
  readonly auditHead?: AuditHeadNow | undefined;
  readonly observe: (event: SourceEvent) => void;
  /** Settles at once what closed migrations have left of a VM, instead of waiting for the next sweep. */
  readonly settle: (vmId: string) => Promise<void>;
}

/** What the agent's metrics hear of. */
export type SourceEvent =
  | { readonly kind: 'progress'; readonly progress: ImageProgress }
  | { readonly kind: 'image'; readonly result: ImageResult };

export type { HandOverInput, LinkInput } from '../src/model/activity-inputs';

export type PreparedSource = ActivityResult<'prepareSource'>;
