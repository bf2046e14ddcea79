/**
 * Connections to Temporal, configured as all its SDKs and its CLI are: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS_*,
 * TEMPORAL_API_KEY or a profile file (@temporalio/envconfig); beside them TEMPORAL_API_KEY_FILE, since a token in the environment
 * is seen by more than its reader. A worker's connection is worker-connection.ts's: what it stands on takes half a second to load,
 * which no command for a client should take.
 */
import { Client, Connection } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { DwcpError, messageOf } from '../model/errors';
import { readSecretFile } from '../store/secret-file';
import { payloadConverter } from './payload-codec';

export interface TemporalTarget {
  readonly address: string;
  readonly namespace: string;
}

const API_KEY_FILE = 'TEMPORAL_API_KEY_FILE';

/** @throws CONFIG_INVALID */
export function configuration(): ReturnType<typeof loadClientConnectConfig> {
  try {
    const config = loadClientConnectConfig();
    const path = process.env[API_KEY_FILE];
    if (!path) return config;
    const apiKey = readSecretFile(API_KEY_FILE, path).toString('utf8').trim();
    if (apiKey === '') throw new DwcpError('CONFIG_INVALID', `${API_KEY_FILE} ${path} is empty`);
    const { connectionOptions } = config;
    return { ...config, connectionOptions: { ...connectionOptions, tls: connectionOptions.tls ?? true, apiKey } };
  } catch (cause) {
    if (cause instanceof DwcpError) throw cause;
    throw new DwcpError('CONFIG_INVALID', `The Temporal client configuration is wrong: ${messageOf(cause)}`, { cause });
  }
}

export function temporalTarget(): TemporalTarget {
  const { connectionOptions, namespace } = configuration();
  return { address: connectionOptions.address ?? 'localhost:7233', namespace: namespace ?? 'default' };
}

const REFUSED = /permission.?denied|unauthenticated|unauthorized|certificate/i;

/** Why nothing could be connected, as far as it can be told. */
export function unreachable(cause: unknown): DwcpError {
  const { address } = temporalTarget();
  const words = wordsOf(cause);
  if (!REFUSED.test(words))
    return new DwcpError('CONTROL_PLANE_UNREACHABLE', `No Temporal server answers at ${address}`, {
      side: 'control',
      cause,
    });
  return new DwcpError('CONTROL_PLANE_UNREACHABLE', `Temporal at ${address} does not let this client in: ${words}`, {
    side: 'control',
    cause,
    hint: 'Look at TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_API_KEY_FILE: deploy/make-secrets.sh makes both anew',
  });
}

function wordsOf(error: unknown): string {
  const cause: unknown = typeof error === 'object' && error !== null && 'cause' in error ? error.cause : undefined;
  return [messageOf(error), ...(cause === undefined ? [] : [messageOf(cause)])].join(': ').slice(0, 500);
}

/** What a failed call to the server means: its own words stand in the cause. */
export function ofServer(error: unknown): DwcpError {
  if (error instanceof DwcpError) return error;
  return new DwcpError('CONTROL_PLANE_UNREACHABLE', `Temporal at ${temporalTarget().address}: ${wordsOf(error)}`, {
    side: 'control',
    cause: error,
  });
}

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * A client for one command.
 * @param payloadKeyFile as the option of that name
 * @throws CONTROL_PLANE_UNREACHABLE within five seconds
 */
export async function connectClient(payloadKeyFile: string): Promise<Client> {
  const { connectionOptions, namespace } = configuration();
  const dataConverter = payloadConverter(payloadKeyFile);
  try {
    const connection = await Connection.connect({ ...connectionOptions, connectTimeout: CONNECT_TIMEOUT_MS });
    return new Client({ connection, dataConverter, ...(namespace !== undefined && { namespace }) });
  } catch (cause) {
    throw unreachable(cause);
  }
}
