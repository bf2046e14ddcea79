/**
 * The control worker: serves the workflows and their light activities on the control queue, after it has made sure of
 * search attributes and schedules. Runs the bundle that the build has made, never one of its own.
 */
import { join } from 'node:path';
import { Client } from '@temporalio/client';
import { type NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createControlActivities } from '../../activities';
import { onAbort } from '../model/abort';
import { DwcpError, hasCode, messageOf, toDwcpError } from '../model/errors';
import { CONTROL_QUEUE } from '../model/names';
import type { ProcessOptions } from '../model/options';
import { PayloadKeys } from '../store/payload-keys';
import { type Logger, temporalLogger } from '../telemetry/logger';
import { controlMetrics, type MetricsServer, serveMetrics } from '../telemetry/metrics';
import { RELEASE } from '../transport/hello';
import { TrustFolder, trustFolderOf } from '../trust/trust-folder';
import { connectClient, temporalTarget } from './connection';
import { openDecisions } from './decisions';
import { createIssuer } from './issuer';
import { knownHosts } from './known-hosts';
import { clientConverter, workerConverter } from './payload-codec';
import { declaredSchedules, ensureSchedules } from './schedules';
import { ensureSearchAttributes } from './search-attributes';
import { connectWorker } from './worker-connection';

/** Where the build puts the bundles, beside the compiled sources: failures of the second are payloads, for the codec. */
export const WORKFLOW_BUNDLE = join(__dirname, '..', '..', 'workflow-bundle.js');
export const ENCODED_FAILURES_BUNDLE = join(__dirname, '..', '..', 'workflow-bundle-encoded-failures.js');

export interface RunningControl {
  readonly metrics: MetricsServer | undefined;
  readonly ended: Promise<void>;
  stop(): void;
}

export async function startControl(options: ProcessOptions, log: Logger): Promise<RunningControl> {
  const keys = PayloadKeys.read(options.payloadKeyFile);
  const stopping = new AbortController();
  const trust = TrustFolder.make(trustFolderOf(options));
  const decisions = await openDecisions(options, (error) =>
    log.error(error.report(), 'a decision is not written down'),
  );
  const { registry, record } = controlMetrics();
  let ready = false;
  const metrics =
    options.metricsPort > 0
      ? await serveMetrics(registry, options.metricsAddress, options.metricsPort, () => ready)
      : undefined;
  log.info(
    { queue: CONTROL_QUEUE, temporal: temporalTarget().address, payloadKeys: keys.ids, audit: decisions.folder },
    'control worker started',
  );
  // oxlint-disable-next-line typescript/no-misused-promises -- finally waits for it
  const ended = run().finally(async () => {
    await metrics?.close();
    await decisions.close();
  });
  return { metrics, ended, stop: () => stopping.abort() };

  async function run(): Promise<void> {
    Runtime.install({ logger: temporalLogger(log), shutdownSignals: [] });
    let connection: NativeConnection;
    try {
      connection = await connectWorker(stopping.signal, (error) =>
        log.warn(error.report(), 'waiting for the Temporal server'),
      );
    } catch (error) {
      if (stopping.signal.aborted) return;
      throw toDwcpError(error, 'CONTROL_PLANE_UNREACHABLE');
    }
    const { namespace } = temporalTarget();
    const client = new Client({ connection, namespace, dataConverter: clientConverter(keys) });
    await makeReady(options, log);
    const worker = await Worker.create({
      connection,
      namespace,
      identity: `control ${RELEASE} (${process.pid})`,
      taskQueue: CONTROL_QUEUE,
      workflowBundle: { codePath: keys.ids.length > 0 ? ENCODED_FAILURES_BUNDLE : WORKFLOW_BUNDLE },
      dataConverter: workerConverter(keys, (error) => log.error(error.report(), 'a payload cannot be read')),
      activities: createControlActivities(record, () => knownHosts(client), createIssuer(trust, decisions)),
      shutdownGraceTime: '1s',
      shutdownForceTime: '10s',
    });
    onAbort(stopping.signal, () => worker.shutdown());
    ready = true;
    log.info({ queue: CONTROL_QUEUE }, 'taking work');
    try {
      await worker.run();
    } finally {
      await connection.close();
    }
  }
}

async function makeReady(options: ProcessOptions, log: Logger): Promise<void> {
  const client = await connectClient(options.payloadKeyFile);
  try {
    const added = await ensureSearchAttributes(client);
    const schedules = await ensureSchedules(client, declaredSchedules(options.pruneInterval));
    log.info({ searchAttributesAdded: added, schedules }, 'control plane prepared');
  } catch (cause) {
    if (hasCode(cause, 'PAYLOAD_UNREADABLE')) throw cause;
    throw new DwcpError('CONTROL_PLANE_UNREACHABLE', `The Temporal server could not be prepared: ${messageOf(cause)}`, {
      cause,
    });
  } finally {
    await client.connection.close();
  }
}
