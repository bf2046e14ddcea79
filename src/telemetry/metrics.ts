/**
 * Prometheus metrics of an agent and of the control worker, and the small HTTP server that shows them. Names carry
 * units; no label grows with VMs or migrations.
 */
import { createServer, type Server } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { EncoderReport } from '../model/migration';

export interface MetricsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Serves /metrics and /healthz. @param healthy what /healthz answers by */
export async function serveMetrics(
  registry: Registry,
  address: string,
  port: number,
  healthy: () => boolean,
): Promise<MetricsServer> {
  const server: Server = createServer((request, response) => {
    if (request.url === '/healthz') {
      response.writeHead(healthy() ? 200 : 503).end(healthy() ? 'ok\n' : 'not ready\n');
      return;
    }
    if (request.url !== '/metrics') {
      response.writeHead(404).end('only /metrics and /healthz are here\n');
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, address, resolve);
  });
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

export interface AgentReadings {
  readonly sessions: () => number;
  readonly activeStreams: () => number;
  readonly batchBytes: () => number;
  readonly bufferedBytes: () => { readonly sending: number; readonly receiving: number };
  readonly baselineBytes: () => Promise<number>;
  /** Of the dictionaries in use. */
  readonly dictionaryGains: () => Promise<readonly { readonly vmType: string; readonly gain: number }[]>;
}

export interface AgentMetrics {
  readonly registry: Registry;
  readonly imageTransferred: (image: {
    readonly totalBytes: number;
    readonly linkBytes: number;
    readonly seconds: number;
    readonly deltaHitRate: number;
    readonly blocks: { readonly resent: number; readonly references: number };
    readonly encoder: EncoderReport;
  }) => void;
}

export function agentMetrics(readings: AgentReadings): AgentMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'dwcp_agent_' });
  const gauge = (name: string, help: string, read: () => number | Promise<number>): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect: async function () {
        this.set(await read());
      },
    });
  };
  gauge('dwcp_receiving_sessions', 'Sessions that send to this host now', readings.sessions);
  gauge('dwcp_amst_active_streams', 'Data streams of this host that pull work now', readings.activeStreams);
  gauge('dwcp_amst_chunk_size_bytes', 'Raw bytes of a batch now', readings.batchBytes);
  gauge('dwcp_sending_buffer_bytes', 'Batch memory taken on the sending side', () => readings.bufferedBytes().sending);
  gauge(
    'dwcp_receiving_buffer_bytes',
    'Batch memory taken on the receiving side',
    () => readings.bufferedBytes().receiving,
  );
  gauge('dwcp_baseline_bytes', 'Disk space that baselines take', readings.baselineBytes);
  new Gauge({
    name: 'dwcp_hde_dictionary_gain',
    help: 'Share that frames of pages held out of the training became smaller by, of the dictionary in use',
    labelNames: ['vm_type'],
    registers: [registry],
    collect: async function () {
      this.reset();
      // One of each tenant: the least, since no label grows with these.
      const least = new Map<string, number>();
      for (const { vmType, gain } of await readings.dictionaryGains())
        least.set(vmType, Math.min(gain, least.get(vmType) ?? gain));
      for (const [vmType, gain] of least) this.set({ vm_type: vmType }, gain);
    },
  });
  const imageBytes = new Counter({
    name: 'dwcp_image_bytes_total',
    help: 'Bytes of images made equal',
    registers: [registry],
  });
  const linkBytes = new Counter({ name: 'dwcp_link_bytes_total', help: 'Bytes sent for them', registers: [registry] });
  const resent = new Counter({
    name: 'dwcp_resent_blocks_total',
    help: 'Blocks sent again after a stream or a session was lost',
    registers: [registry],
  });
  const references = new Counter({
    name: 'dwcp_hde_reference_blocks_total',
    help: 'Blocks with pages that the destination had elsewhere',
    registers: [registry],
  });
  const encoded = new Counter({
    name: 'dwcp_hde_encoded_bytes_total',
    help: 'Bytes on the link, by encoding',
    labelNames: ['encoding'],
    registers: [registry],
  });
  const packed = new Counter({
    name: 'dwcp_hde_packed_bytes_total',
    help: 'Bytes on the link of what deltas and references leave, by packing',
    labelNames: ['packing'],
    registers: [registry],
  });
  const encoding = new Counter({
    name: 'dwcp_hde_encoder_seconds_total',
    help: 'Time of the encoder, all threads, by stage',
    labelNames: ['stage'],
    registers: [registry],
  });
  const ratio = new Histogram({
    name: 'dwcp_hde_compression_ratio',
    help: 'Image bytes for each byte sent, per image',
    buckets: [1, 1.5, 2, 3, 5, 8, 13, 21, 100, 1000],
    registers: [registry],
  });
  const hits = new Histogram({
    name: 'dwcp_hde_delta_hit_rate',
    help: 'Share of held blocks that were not sent in full, per image',
    buckets: [0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1],
    registers: [registry],
  });
  const seconds = new Histogram({
    name: 'dwcp_image_transfer_seconds',
    help: 'Time to make an image equal',
    buckets: [1, 5, 15, 60, 300, 900, 3600, 14_400],
    registers: [registry],
  });
  return {
    registry,
    imageTransferred: (image) => {
      imageBytes.inc(image.totalBytes);
      linkBytes.inc(image.linkBytes);
      resent.inc(image.blocks.resent);
      references.inc(image.blocks.references);
      for (const [encoding, bytes] of Object.entries(image.encoder.bytes)) encoded.inc({ encoding }, bytes);
      for (const [packing, bytes] of Object.entries(image.encoder.packings)) packed.inc({ packing }, bytes);
      for (const [stage, ms] of Object.entries(image.encoder.times))
        encoding.inc({ stage: stage.replace(/Ms$/, '') }, ms / 1000);
      ratio.observe(image.totalBytes / Math.max(1, image.linkBytes));
      hits.observe(image.deltaHitRate);
      seconds.observe(image.seconds);
    },
  };
}

export interface ControlMetrics {
  readonly registry: Registry;
  readonly record: (outcome: {
    readonly outcome: string;
    readonly path: string;
    readonly fallbackReason?: string | undefined;
    readonly speedup: number;
    readonly totalSeconds: number;
  }) => void;
}

export function controlMetrics(): ControlMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'dwcp_control_' });
  const migrations = new Counter({
    name: 'dwcp_migrations_total',
    help: 'Migrations that have ended',
    labelNames: ['outcome', 'path'],
    registers: [registry],
  });
  const fallbacks = new Counter({
    name: 'dwcp_fallbacks_total',
    help: 'Migrations that took the standard transfer after DWCP failed, by code',
    labelNames: ['reason'],
    registers: [registry],
  });
  const rate = new Gauge({
    name: 'dwcp_fallback_rate',
    help: 'Share of completed migrations that fell back, since the start',
    registers: [registry],
  });
  const speedup = new Gauge({
    name: 'dwcp_speedup',
    help: 'Speedup of the last migration over the standard transfer',
    registers: [registry],
  });
  const seconds = new Histogram({
    name: 'dwcp_migration_seconds',
    help: 'Request accepted to images verified and handed over',
    buckets: [5, 15, 60, 300, 900, 3600, 14_400],
    registers: [registry],
  });
  let completed = 0;
  let fallen = 0;
  return {
    registry,
    record: ({ outcome, path, fallbackReason, speedup: reached, totalSeconds }) => {
      migrations.inc({ outcome, path });
      if (fallbackReason !== undefined) fallbacks.inc({ reason: fallbackReason });
      if (outcome !== 'completed') return;
      completed += 1;
      if (path === 'fallback') fallen += 1;
      rate.set(fallen / completed);
      speedup.set(reached);
      seconds.observe(totalSeconds);
    },
  };
}
