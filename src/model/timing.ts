/**
 * How often things beat and how long silence may last: all derived from one tick, so that they cannot drift apart.
 */

/** Agents report progress this often. */
export const HEARTBEAT_TICK_MS = 1_000;
/** An activity whose agent has been silent this long is tried again elsewhere or later. */
export const HEARTBEAT_TIMEOUT_MS = 10 * HEARTBEAT_TICK_MS;
/** Upper bound of the SDK's own throttling: also how soon a cancel or a pause reaches a running activity. */
export const HEARTBEAT_THROTTLE_MS = HEARTBEAT_TICK_MS;
/** A host whose agent takes no work for this long counts as away: the workflow parks. */
export const HOST_PATIENCE_MS = 120_000;
/** Sessions are let in this long after their grant was made; it is renewed when it has run out. */
export const GRANT_LIFETIME_MS = 24 * 3_600_000;
