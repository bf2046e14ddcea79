/**
 * Both ends of `bench -- transport`, each a process of its own on its host of the emulated link:
 * `receive JSON` an agent's parts without Temporal; `send JSON` the migration adapter; `share JSON` two migrations of one
 * host under one limit. They speak in lines of JSON on stdout.
 */
import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { openHost } from '../src/agent/host';
import { createMigrationAdapter } from '../src/control/adapter';
import { hasCode } from '../src/model/errors';
import { compileMigrationOptions, PROCESS_OPTIONS, withDefaults } from '../src/model/options';
import { selectLevelAndStreams } from '../src/model/tiers';
import { ScanFeed } from '../src/sync/feeds/block-feed';
import { ImageSender, type SendProgress } from '../src/sync/source/image-sender';
import { SourceMigration } from '../src/sync/source/source-migration';
import { mintGrant } from '../src/transport/grants';
import { TrustFolder } from '../src/trust/trust-folder';

export interface ReceiveOrder {
  readonly dataDir: string;
  readonly port: number;
}

export interface SendOrder {
  readonly dataDir: string;
  readonly addresses: readonly string[];
  readonly port: number;
  readonly agentKey: string;
  readonly image: string;
  readonly sessionId: string;
  /** Given up after so long; what counts is what has arrived by then. */
  readonly seconds: number;
  readonly minStreams: number;
  readonly maxStreams: number;
  /** Bytes a second, 0 for none. */
  readonly bandwidthLimit: number;
}

/** What the sender says, four times a second. */
export interface SendLine {
  readonly atMs: number;
  readonly streams: number;
  readonly linkBytes: number;
  readonly doneBytes: number;
  readonly rttMs: number;
}

export interface ShareOrder extends Pick<SendOrder, 'dataDir' | 'port' | 'agentKey' | 'image' | 'seconds'> {
  readonly address: string;
  readonly hostBandwidthLimit: number;
  readonly priorities: readonly number[];
}

/** What each of them has sent. */
export interface ShareLine {
  readonly atMs: number;
  readonly linkBytes: readonly number[];
}

/** Beside the folders of all ends of a run. */
function trustDirOf(dataDir: string): string {
  return TrustFolder.make(join(dirname(dataDir), 'trust')).path;
}

function write(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function receive({ dataDir, port }: ReceiveOrder): Promise<void> {
  const host = await openHost(
    withDefaults(PROCESS_OPTIONS, {
      hostId: 'bench-b',
      dataDir,
      listenAddress: '0.0.0.0',
      port,
      trustDir: trustDirOf(dataDir),
    }),
  );
  process.on('SIGUSR2', () => host.dropConnections(2));
  write({ agentKey: host.key.toString('hex') });
}

async function send(order: SendOrder): Promise<void> {
  const {
    minStreams,
    maxStreams,
    bandwidthLimit,
    addresses: [address = '', ...further],
    port,
  } = order;
  const adapter = createMigrationAdapter({
    dataDir: order.dataDir,
    trustDir: trustDirOf(order.dataDir),
    dwcp: {
      minStreams,
      maxStreams,
      bandwidthLimit,
      initialStreams: Math.min(16, maxStreams),
      enableCompression: false,
    },
    explain: (line) => write({ atMs: Date.now(), explain: line }),
  });
  const abort = new AbortController();
  setTimeout(() => abort.abort(), order.seconds * 1000);
  const say = ({ streams, linkBytes, doneBytes, rttMs }: SendProgress): void =>
    write({ atMs: Date.now(), streams, linkBytes, doneBytes, rttMs } satisfies SendLine);
  const destination = {
    hostId: 'bench-b',
    address,
    port,
    furtherPaths: further.map((each) => ({ address: each, port })),
    agentKey: Buffer.from(order.agentKey, 'hex'),
    sessionId: order.sessionId,
  };
  try {
    await adapter.migrateVmDisk(order.sessionId, order.image, destination, say, abort.signal);
    write({ atMs: Date.now(), finished: true });
  } catch (error) {
    if (!abort.signal.aborted && !hasCode(error, 'CANCELLED')) throw error;
  } finally {
    await adapter.close();
  }
}

async function share(order: ShareOrder): Promise<void> {
  const host = await openHost(
    withDefaults(PROCESS_OPTIONS, {
      hostId: 'bench-a',
      dataDir: order.dataDir,
      listenAddress: '0.0.0.0',
      trustDir: trustDirOf(order.dataDir),
      port: order.port,
      hostBandwidthLimit: order.hostBandwidthLimit,
    }),
  );
  const sizeBytes = statSync(order.image).size;
  const senders = await Promise.all(
    order.priorities.map(async (priority, index) => {
      const migrationId = `share-${index}`;
      const grant = mintGrant(
        Buffer.from(order.agentKey, 'hex'),
        { purpose: 'session', subject: migrationId, holder: 'bench-a' },
        3600e3,
      );
      const migration = new SourceMigration(
        migrationId,
        { hostId: 'bench-b', address: order.address, port: order.port, grant },
        { bandwidthLimit: 0, priority },
        host.source,
      );
      const session = await migration.session();
      const image = { imageId: 'vda', kind: 'disk' as const, sizeBytes };
      await session.control.request('prepare', {
        record: {
          migrationId,
          vmId: migrationId,
          mode: 'direct',
          fence: 0,
          generation: 0,
          sourceHost: 'bench-a',
          images: [{ ...image, path: '/' }],
        },
      });
      const options = compileMigrationOptions({ bandwidthLimit: 0, enableCompression: false });
      const start = selectLevelAndStreams(await migration.measureLink(), options, false);
      return new ImageSender(migration, {
        vmId: migrationId,
        image,
        path: order.image,
        feed: await ScanFeed.open(order.image, sizeBytes),
        start,
        options,
        linkBytesPerSecond: 0,
      });
    }),
  );
  setInterval(
    () => write({ atMs: Date.now(), linkBytes: senders.map(({ progress }) => progress.linkBytes) } satisfies ShareLine),
    250,
  );
  const ending = AbortSignal.timeout(order.seconds * 1000);
  await Promise.allSettled(senders.map((sender) => sender.run(ending)));
}

const [role, order = '{}'] = process.argv.slice(2);
const ROLES: Readonly<Record<string, (order: unknown) => Promise<void>>> = {
  receive: (given) => receive(given as ReceiveOrder),
  send: (given) => send(given as SendOrder).then(() => process.exit()),
  share: (given) => share(given as ShareOrder).then(() => process.exit()),
};
const run = ROLES[role ?? '']?.(JSON.parse(order)) ?? Promise.reject(new Error(`no role ${role ?? ''}`));
run.catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
});
