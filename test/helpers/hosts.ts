/**
 * Hosts in this process: all of an agent but Temporal, with data folders of their own, closed and gone after the test.
 */
import { type HostParts, openHost } from '../../src/agent/host';
import { freePort } from '../../src/control/embedded-server';
import { PROCESS_OPTIONS, type ProcessOptions, withDefaults } from '../../src/model/options';
import { SourceOwnership } from '../../src/sync/hand-over/source-ownership';
import type { Destination } from '../../src/sync/source/source-context';
import { SourceHub } from '../../src/sync/source-hub';
import { mintGrant } from '../../src/transport/grants';

export interface TestHost extends HostParts {
  readonly sources: SourceHub;
  readonly sourceOwnership: SourceOwnership;
  readonly options: ProcessOptions;
  /** How the other side reaches it for a migration. */
  destinationFor(migrationId: string): Destination;
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
    port: await freePort(),
    workerThreads: 2,
    bufferMemory: 32 * 1024 * 1024,
    ...extra,
  });
  const parts = await openHost(options);
  const sources = new SourceHub(parts.source);
  const { registry, ownership, store, driver, source } = parts;
  const host: TestHost = {
    ...parts,
    sources,
    options,
    sourceOwnership: new SourceOwnership({ registry, ownership, store, pool: source.pool, holder: driver }),
    destinationFor: (migrationId) => ({
      address: '127.0.0.1',
      port: options.port,
      grant: mintGrant(parts.key, 'session', migrationId, 3600e3),
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
