/**
 * The start of every flow: the argument checked, handlers registered before the first await, the scope that a cancel
 * ends. Nothing has been asked of a host when this returns.
 */
import { CancellationScope, uuid4 } from '@temporalio/workflow';
import { type MigrationRequest, migrationRequestSchema } from '../src/model/migration';
import { onSource } from './activity-proxies';
import { Authority } from './authority';
import { failWith, parseArgument, parseOptions, toCoded } from './failures';
import { type MigrationIdentity, MigrationState } from './migration-state';
import { TransferFlow } from './transfer-flow';

export interface Begun {
  readonly flow: TransferFlow;
  readonly state: MigrationState;
  readonly scope: CancellationScope;
  readonly startedAtMs: number;
}

/** @throws a failure INVALID_INPUT */
export function begin(argument: MigrationRequest, mode: MigrationIdentity['mode']): Begun {
  const startedAtMs = Date.now();
  const { vmId, sourceHost, destinationHost, ...request } = parseArgument(migrationRequestSchema, argument);
  const migrationId = request.migrationId ?? uuid4();
  const options = parseOptions(request.options);
  const scope = new CancellationScope();
  const authority = new Authority({
    mode,
    migrationId,
    vmId,
    sourceHost,
    destinationHost,
    ...(request.authorisation !== undefined && { request: request.authorisation }),
  });
  const setLimit = async (bytesPerSecond: number): Promise<void> => {
    const call = { activityId: `set-bandwidth-limit-${uuid4()}`, summary: `Limit ${bytesPerSecond} bytes a second` };
    await onSource(sourceHost, 'brief', call, authority).setBandwidthLimit({ migrationId, bytesPerSecond });
    options.bandwidthLimit = bytesPerSecond;
  };
  const acceptTwoCopies = async (word: string | undefined): Promise<void> => {
    if (!authority.isInForce) return;
    try {
      authority.extend({ twoCopies: word ?? '' });
      await authority.current();
    } catch (error) {
      authority.extend({ twoCopies: undefined });
      throw failWith(toCoded(error));
    }
  };
  const state = new MigrationState(
    { migrationId, vmId, sourceHost, destinationHost, mode, priority: options.priority },
    scope,
    { setLimit, change: (changed) => Object.assign(options, changed), acceptTwoCopies },
  );
  return { flow: new TransferFlow(state, options, authority), state, scope, startedAtMs };
}
