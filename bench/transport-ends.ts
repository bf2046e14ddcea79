/**
 * Both ends of `bench -- transport`, each a process of its own on its host of the emulated link:
 * `receive JSON` an agent's parts without Temporal; `send JSON` the migration adapter. They speak in lines of JSON on stdout.
 */
import { openHost } from '../src/agent/host';
import { createMigrationAdapter } from '../src/control/adapter';
import { PROCESS_OPTIONS, withDefaults } from '../src/model/options';
import type { SendProgress } from '../src/sync/image-sender';
import { hasCode } from '../src/model/errors';

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

function write(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function receive({ dataDir, port }: ReceiveOrder): Promise<void> {
  const host = await openHost(withDefaults(PROCESS_OPTIONS, { hostId: 'bench-b', dataDir, listenAddress: '0.0.0.0', port }));
  write({ agentKey: host.key.toString('hex') });
}

async function send(order: SendOrder): Promise<void> {
  const { minStreams, maxStreams, bandwidthLimit, addresses: [address = '', ...further], port } = order;
  const adapter = createMigrationAdapter({
    dataDir: order.dataDir,
    dwcp: { minStreams, maxStreams, bandwidthLimit, initialStreams: Math.min(16, maxStreams), enableCompression: false },
    explain: (line) => write({ atMs: Date.now(), explain: line }),
  });
  const abort = new AbortController();
  setTimeout(() => abort.abort(), order.seconds * 1000);
  const say = ({ streams, linkBytes, doneBytes, rttMs }: SendProgress): void => write({ atMs: Date.now(), streams, linkBytes, doneBytes, rttMs } satisfies SendLine);
  const destination = { address, port, furtherPaths: further.map((each) => ({ address: each, port })), agentKey: Buffer.from(order.agentKey, 'hex'), sessionId: order.sessionId };
  try {
    await adapter.migrateVmDisk(order.sessionId, order.image, destination, say, abort.signal);
    write({ atMs: Date.now(), finished: true });
  } catch (error) {
    if (!abort.signal.aborted && !hasCode(error, 'CANCELLED')) throw error;
  } finally {
    await adapter.close();
  }
}

const [role, order = '{}'] = process.argv.slice(2);
const run = role === 'receive' ? receive(JSON.parse(order) as ReceiveOrder) : send(JSON.parse(order) as SendOrder).then(() => process.exit());
run.catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
});
