/** A worker's connection to Temporal, configured as all are (connection.ts): it waits for a server that is not there yet. */
import { NativeConnection } from '@temporalio/worker';
import type { DwcpError } from '../model/errors';
import { wait } from '../system/wait';
import { configuration, unreachable } from './connection';

/** Waits until a server answers. @param waiting told of each attempt that failed */
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
