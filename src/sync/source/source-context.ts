/**
 * What every migration that leaves this host shares, and what it is told of the other side: types, and one constant.
 */
import { MIGRATION_OPTIONS, type MigrationOptions } from '../../model/options';
import type { BaseStore } from '../../store/base-disks';
import type { BaselineStore } from '../../store/baselines';
import type { DictionaryStore } from '../../store/dictionaries';
import type { MoveHistory } from '../../store/move-history';
import type { PathHistory } from '../../store/path-history';
import type { PeerAddress } from '../../transport/endpoint';
import type { Grant } from '../../transport/grants';
import type { PeerPool } from '../../transport/peer-pool';
import type { SharedLimit } from '../../transport/shared-limit';
import type { Slab } from '../../transport/slab';
import type { CodecPool } from '../codec/codec-pool';

export interface SourceContext {
  readonly hostId: string;
  readonly peers: PeerPool;
  readonly pool: CodecPool;
  readonly slab: Slab;
  readonly store: BaselineStore;
  readonly dictionaries: DictionaryStore;
  readonly bases: BaseStore;
  /** What all migrations of this host may send together. */
  readonly limit: SharedLimit;
  readonly history: PathHistory;
  /** Of guests that have been moved from here. */
  readonly moves: MoveHistory;
  /** Numbers the sessions that this host opens: each is higher than all before it, also over a restart. */
  readonly nextEpoch: () => number;
  /** Hears one line for each decision about a migration's transfer. */
  readonly explain?: (migrationId: string, line: string) => void;
  /** Addresses of this host, one for each path in turn; the routing table chooses where there are none. */
  readonly sourceAddresses?: readonly string[];
}

/** How other agents reach one. */
export interface Advertised extends PeerAddress {
  /** Further addresses of the same agent, each a path of its own. */
  readonly furtherPaths?: readonly Pick<PeerAddress, 'address' | 'port'>[] | undefined;
}

export interface Destination extends Advertised {
  readonly grant: Grant;
}

export type TransferLimits = Pick<MigrationOptions, 'bandwidthLimit' | 'priority'>;
/** None of its own: what settles or measures something; the host's limit holds all the same. */
export const UNLIMITED: TransferLimits = { bandwidthLimit: 0, priority: MIGRATION_OPTIONS.priority.default };
