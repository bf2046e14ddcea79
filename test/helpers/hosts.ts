/**
 * Hosts in this process: all of an agent but Temporal, with data folders of their own, closed and gone after the test.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type HostParts, openHost } from '../../src/agent/host';
import { freePort } from '../../src/control/embedded-server';
import { PROCESS_OPTIONS, type ProcessOptions, withDefaults } from '../../src/model/options';
import { SourceOwnership } from '../../src/sync/hand-over/source-ownership';
import type { Destination } from '../../src/sync/source/source-context';
import { SourceHub } from '../../src/sync/source-hub';
import { mintGrant } from '../../src/transport/grants';
import { sharedTrust } from './identities';

export interface TestHost extends HostParts {
  readonly sources: SourceHub;
  readonly sourceOwnership: SourceOwnership;
  readonly options: ProcessOptions;
  /** How the other side reaches it for a migration. */
  destinationFor(migrationId: string, sourceHost: string): Destination;
}

const open = new Set<TestHost>();

export async function startHost(
  hostId: string,
  dataDir: string,
  extra: Partial<ProcessOptions> = {},
): Promise<TestHost> {
  const options = withDefaults(PROCESS_OPTIONS, {
    hostId,
    dataDir,
    listenAddress: '127.0.0.1',
    trustDir: sharedTrust().path,
    port: await freePort(),
    workerThreads: 2,
    bufferMemory: 32 * 1024 * 1024,
    ...extra,
  });
  // One of this name that an earlier test has had is another host.
  if (!existsSync(join(dataDir, 'host.key'))) sharedTrust().forget(hostId);
  const parts = await openHost(options);
  const sources = new SourceHub(parts.source);
  const { registry, ownership, store, driver, source } = parts;
  const host: TestHost = {
    ...parts,
    sources,
    options,
    sourceOwnership: new SourceOwnership({ registry, ownership, store, pool: source.pool, holder: driver }),
    destinationFor: (migrationId, holder) => ({
      hostId,
      address: '127.0.0.1',
      port: options.port,
      grant: mintGrant(parts.key, { purpose: 'session', subject: migrationId, holder }, 3600e3),
    }),
    close: async () => {
      open.delete(host);
      await sources.closeAll();
      await parts.close();
    },
  };
  open.add(host);
  return host;
}

afterEach(async () => {
  for (const host of [...open]) await host.close();
});
