/**
 * Connections to Temporal, configured as all its SDKs and its CLI are: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS_*
 * or a profile file (@temporalio/envconfig). Waits for a server that is not there yet where the caller can.
 */
import { Client, Connection } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { NativeConnection } from '@temporalio/worker';
import { DwcpError, messageOf } from '../model/errors';
import { wait } from '../system/wait';

export interface TemporalTarget {
  readonly address: string;
  readonly namespace: string;
}

function configuration(): ReturnType<typeof loadClientConnectConfig> {
  try {
    return loadClientConnectConfig();
  } catch (cause) {
    throw new DwcpError('CONFIG_INVALID', `The Temporal client configuration is wrong: ${messageOf(cause)}`, { cause });
  }
}

export function temporalTarget(): TemporalTarget {
  const { connectionOptions, namespace } = configuration();
  return { address: connectionOptions.address ?? 'localhost:7233', namespace: namespace ?? 'default' };
}

function unreachable(cause: unknown): DwcpError {
  const { address } = temporalTarget();
  return new DwcpError('CONTROL_PLANE_UNREACHABLE', `No Temporal server answers at ${address}`, {
    side: 'control',
    cause,
  });
}

/** What a failed call to the server means: its own words stand in the cause. */
export function ofServer(error: unknown): DwcpError {
  if (error instanceof DwcpError) return error;
  const cause: unknown = typeof error === 'object' && error !== null && 'cause' in error ? error.cause : undefined;
  const words = [messageOf(error), ...(cause === undefined ? [] : [messageOf(cause)])].join(': ');
  return new DwcpError('CONTROL_PLANE_UNREACHABLE', `Temporal at ${temporalTarget().address}: ${words}`, {
    side: 'control',
    cause: error,
  });
}

const CONNECT_TIMEOUT_MS = 5_000;

/** A client for one command. @throws CONTROL_PLANE_UNREACHABLE within five seconds */
export async function connectClient(): Promise<Client> {
  const { connectionOptions, namespace } = configuration();
  try {
    const connection = await Connection.connect({ ...connectionOptions, connectTimeout: CONNECT_TIMEOUT_MS });
    return new Client({ connection, ...(namespace !== undefined && { namespace }) });
  } catch (cause) {
    throw unreachable(cause);
  }
}

/** A worker's connection; waits until a server answers. @param waiting told of each attempt that failed */
export async function connectWorker(
  signal: AbortSignal,
  waiting: (error: DwcpError) => void,
): Promise<NativeConnection> {
  const { connectionOptions } = configuration();
  for (;;) {
    signal.throwIfAborted();
    try {
      return await NativeConnection.connect(connectionOptions);
    } catch (cause) {
      waiting(unreachable(cause));
      await wait(2000);
    }
  }
}
