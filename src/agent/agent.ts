/**
 * An agent: a host's parts, a Temporal worker on the host's own task queue, metrics and the sweep. It lives through a
 * Temporal server that is away, and ends in order on a signal.
 */
import { Client } from '@temporalio/client';
import { type NativeConnection, Runtime, Worker } from '@temporalio/worker';
import {
  type AuditHeadNow,
  createDestinationActivities,
  createDictionaryActivities,
  createProgressReporter,
  createSourceActivities,
  type SayWord,
  type SourceEvent,
} from '../../activities';
import { temporalTarget } from '../control/connection';
import { clientConverter, workerConverter } from '../control/payload-codec';
import { connectWorker } from '../control/worker-connection';
import { GUEST_USER_MEND } from '../hypervisor/qemu/guest-user';
import { onAbort } from '../model/abort';
import { toDwcpError } from '../model/errors';
import { hostQueue } from '../model/names';
import type { ProcessOptions } from '../model/options';
import { HEARTBEAT_THROTTLE_MS } from '../model/timing';
import { PayloadKeys } from '../store/payload-keys';
import { selfTest } from '../sync/codec/self-test';
import { SourceOwnership } from '../sync/hand-over/source-ownership';
import { SourceHub } from '../sync/source-hub';
import { type Logger, temporalLogger } from '../telemetry/logger';
import { agentMetrics, type MetricsServer, serveMetrics } from '../telemetry/metrics';
import { RELEASE } from '../transport/hello';
import { auditHeadSigner } from '../trust/audit-heads';
import { sayWord } from '../trust/host-words';
import { createWarrantJudge, type WarrantJudge } from '../trust/warrant-judge';
import { type HostParts, openHost } from './host';
import { assertAlone, identityOf } from './only-agent';
import { recoverUntilDone } from './recovery';
import { Sweeper } from './sweeper';

/** Bulk transfers, and beside them the short steps of other migrations. */
const MAX_ACTIVITIES = 32;
const SHUTDOWN_GRACE_MS = 1_000;
const SHUTDOWN_FORCE_MS = 15_000;

export interface RunningAgent {
  readonly host: HostParts;
  readonly metrics: MetricsServer | undefined;
  /** Resolves when the agent has ended after stop(); rejects where it cannot go on. */
  readonly ended: Promise<void>;
  stop(): void;
}

export async function startAgent(options: ProcessOptions, log: Logger): Promise<RunningAgent> {
  const keys = PayloadKeys.read(options.payloadKeyFile);
  const host = await openHost(options, {
    explain: (migrationId, line) => log.info({ migrationId }, line),
    warn: (error) => log.warn(error.report(), 'the audit log is behind'),
  });
  const stopping = new AbortController();
  const sources = new SourceHub(host.source);
  const { registry, ownership: journal, store, driver, source } = host;
  const ownership = new SourceOwnership({ registry, ownership: journal, store, pool: source.pool, holder: driver });
  const readings = agentMetrics({
    sessions: () => host.hub.sessionCount,
    activeStreams: () =>
      sources.migrations.reduce((sum, migration) => sum + (migration.openSession?.stats.activeStreams ?? 0), 0),
    batchBytes: () => lastBatchBytes,
    bufferedBytes: host.bufferedBytes,
    dictionaryGains: () => host.source.dictionaries.list(),
    baselineBytes: async () => (await host.store.list()).reduce((sum, record) => sum + record.allocatedBytes, 0),
  });
  let lastBatchBytes = 0;
  const observe = (event: SourceEvent): void => {
    if (event.kind === 'progress') lastBatchBytes = event.progress.batchBytes;
    else readings.imageTransferred(event.result);
  };
  let ready = false;
  const metrics =
    options.metricsPort > 0
      ? await serveMetrics(readings.registry, options.metricsAddress, options.metricsPort, () => ready)
      : undefined;
  log.info(
    {
      hostId: host.hostId,
      dataDir: host.dataDir,
      dataPlane: `${options.listenAddress}:${host.advertised.port}`,
      advertised: `${host.advertised.address}:${host.advertised.port}`,
      queue: hostQueue(host.hostId),
      temporal: temporalTarget().address,
      payloadKeys: keys.ids,
    },
    'agent started',
  );
  const { user, asRoot } = host.guestPolicy;
  if (asRoot !== undefined) log.warn({ mend: GUEST_USER_MEND }, `guests run as root: ${asRoot}`);
  if (user) log.info({ uid: user.uid, gid: user.gid, ids: user.perVm }, `guests run as ${user.name}`);
  const ended = runWorker({
    host,
    keys,
    options,
    sources,
    ownership,
    observe,
    log,
    signal: stopping.signal,
    onReady: () => (ready = true),
    // oxlint-disable-next-line typescript/no-misused-promises -- finally waits for it
  }).finally(async () => {
    await sources.closeAll();
    await metrics?.close();
    await host.close();
  });
  return { host, metrics, ended, stop: () => stopping.abort() };
}

interface WorkerParts {
  readonly host: HostParts;
  readonly keys: PayloadKeys;
  readonly options: ProcessOptions;
  readonly sources: SourceHub;
  readonly ownership: SourceOwnership;
  readonly observe: (event: SourceEvent) => void;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onReady: () => void;
}

async function runWorker(parts: WorkerParts): Promise<void> {
  const { signal, log, host, ownership } = parts;
  const connected = new AbortController();
  // Guests do not wait for a server. From the first task on it is activities and the sweep that act.
  const recovered = recoverUntilDone(host, ownership, log, AbortSignal.any([signal, connected.signal]));
  Runtime.install({ logger: temporalLogger(log), shutdownSignals: [] });
  let connection: NativeConnection;
  try {
    connection = await connectWorker(signal, (error) => log.warn(error.report(), 'waiting for the Temporal server'));
  } catch (error) {
    if (signal.aborted) return;
    throw toDwcpError(error, 'CONTROL_PLANE_UNREACHABLE');
  }
  connected.abort();
  await recovered;
  const worker = await createWorker(parts, connection);
  onAbort(signal, () => worker.shutdown());
  try {
    await worker.run();
  } finally {
    await connection.close();
  }
}

/** Whose word this host does things by; nobody's, where it has no trust folder. */
function judgeOf(host: HostParts): WarrantJudge | undefined {
  const { hostId, security, audit } = host;
  return (
    security &&
    createWarrantJudge({
      hostId,
      controlKeys: () => security.folder.controlKeys(),
      peers: security.peers,
      refused: host.refused,
      shown: (details) => audit.write('warrant', details),
    })
  );
}

function wordsOf({ hostId, security }: HostParts): SayWord | undefined {
  return security && ((word, { migrationId, vmId }) => sayWord(security.peers, { word, hostId, migrationId, vmId }));
}

/** What anchors this host's audit log in the histories of migrations. */
function auditHeadOf({ hostId, security, audit }: HostParts): AuditHeadNow | undefined {
  return security && auditHeadSigner({ hostId, audit, credentials: () => security.peers.credentials() });
}

async function createWorker(
  { host, keys, options, sources, ownership, observe, log, signal, onReady }: WorkerParts,
  connection: NativeConnection,
): Promise<Worker> {
  const { namespace } = temporalTarget();
  const client = new Client({ connection, namespace, dataConverter: clientConverter(keys) });
  await selfTest(host.source.pool, host.dataDir);
  const { registry, ownership: journal, store, driver, source, hub, dataDir } = host;
  await assertAlone(client, host);
  const [judge, say, auditHead] = [judgeOf(host), wordsOf(host), auditHeadOf(host)];
  const sweeper = new Sweeper({ host, sources, ownership, client, log });
  const settle = (vmId: string): Promise<void> => sweeper.settle(vmId);
  const sweep = (): void =>
    void sweeper
      .sweep()
      .catch((error: unknown) => log.warn(toDwcpError(error, 'INTERNAL').report(), 'the sweep failed'));
  const timer = setInterval(sweep, options.sweepInterval);
  onAbort(signal, () => clearInterval(timer));
  const worker = await Worker.create({
    connection,
    namespace,
    identity: `${identityOf(host.hostId)} ${RELEASE} (${process.pid}) ${host.instance.instanceId}`,
    taskQueue: hostQueue(host.hostId),
    dataConverter: workerConverter(keys, (error) => log.error(error.report(), 'a payload cannot be read')),
    activities: {
      ...createSourceActivities({
        hub: sources,
        ownership,
        journal,
        registry,
        connectGuest: (vmId, definition, ifMayRun) => driver.connectGuest(vmId, definition, ifMayRun),
        lookAtMemory: (vmId, definition) => (ramBlocks, use) => driver.lookAtMemory(vmId, definition, ramBlocks, use),
        serveStopped: (vmId, definition, path) => driver.serveStopped(vmId, definition, path),
        report: createProgressReporter(client),
        judge,
        auditHead,
        say,
        hooks: host.hooks,
        observe,
        settle,
      }),
      ...createDictionaryActivities({
        registry,
        store,
        dictionaries: source.dictionaries,
        pool: source.pool,
        judge,
        auditHead,
      }),
      ...createDestinationActivities({
        hostId: host.hostId,
        dataDir,
        key: host.key,
        advertised: host.advertised,
        hub,
        registry,
        store,
        pool: source.pool,
        guestPolicy: host.guestPolicy,
        judge,
        auditHead,
        say,
        hooks: host.hooks,
        keepBaselineCopy: options.keepBaselineCopy,
        storeLimit: options.storeLimit,
        diskPlaces: options.diskPlaces,
        settle,
      }),
    },
    maxConcurrentActivityTaskExecutions: MAX_ACTIVITIES,
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
    defaultHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
    shutdownGraceTime: SHUTDOWN_GRACE_MS,
    shutdownForceTime: SHUTDOWN_FORCE_MS,
  });
  void driver.askAhead();
  onReady();
  log.info({ hostId: host.hostId }, 'taking work');
  return worker;
}
