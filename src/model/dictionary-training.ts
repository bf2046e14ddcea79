/**
 * What `dwcp dictionary train` shows: what came of it on each host.
 */

export interface TrainResult {
  readonly trained: readonly {
    readonly hostId: string;
    /** Whose VMs it is for. */
    readonly of?: string;
    readonly kept: boolean;
    readonly reason: string;
    readonly version?: number | undefined;
    readonly gain: number;
    readonly samples: number;
  }[];
  /** Hosts that were left out, and why. */
  readonly away: readonly string[];
}
