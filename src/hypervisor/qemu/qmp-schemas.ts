/**
 * The QMP commands that DWCP uses, with what they take and give: one table, from which the client's types are made. Answers
 * are checked loosely, since QEMU adds fields with every release. Source: QEMU 10.0, qapi/*.json.
 */
import { z } from 'zod';

const nothing = z.object({});

export const migrationInfoSchema = z.object({
  status: z.string().optional(),
  'error-desc': z.string().optional(),
  'expected-downtime': z.number().optional(),
  downtime: z.number().optional(),
  'cpu-throttle-percentage': z.number().optional(),
  'blocked-reasons': z.array(z.string()).optional(),
  ram: z
    .object({
      remaining: z.number(),
      transferred: z.number(),
      total: z.number(),
      'dirty-pages-rate': z.number().optional(),
      'dirty-sync-count': z.number().optional(),
      mbps: z.number().optional(),
    })
    .optional(),
});
export type MigrationInfo = z.infer<typeof migrationInfoSchema>;

const bitmapSchema = z.object({
  name: z.string().optional(),
  recording: z.boolean(),
  busy: z.boolean(),
  /** Bytes that it has marked. */
  count: z.number(),
  persistent: z.boolean().optional(),
});

/** A drive of the guest and what is in it. */
export const blockDeviceSchema = z.object({
  device: z.string(),
  qdev: z.string().optional(),
  removable: z.boolean().optional(),
  inserted: z
    .object({
      'node-name': z.string().optional(),
      file: z.string(),
      ro: z.boolean(),
      drv: z.string(),
      encrypted: z.boolean().optional(),
      backing_file_depth: z.number().optional(),
      image: z.looseObject({
        'virtual-size': z.number(),
        filename: z.string(),
        format: z.string(),
        snapshots: z.array(z.unknown()).optional(),
      }),
      'dirty-bitmaps': z.array(bitmapSchema).optional(),
      /** Of limits on what goes through. */
      group: z.string().optional(),
      ...{ bps: z.number().optional(), bps_rd: z.number().optional(), bps_wr: z.number().optional() },
      ...{ iops: z.number().optional(), iops_rd: z.number().optional(), iops_wr: z.number().optional() },
    })
    .optional(),
});
export type BlockDevice = z.infer<typeof blockDeviceSchema>;

export const QMP_RETURNS = {
  qmp_capabilities: nothing,
  'query-version': z.object({
    qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
    package: z.string(),
  }),
  'query-status': z.object({ status: z.string(), running: z.boolean() }),
  'query-migrate': migrationInfoSchema,
  'query-migrate-capabilities': z.array(z.object({ capability: z.string(), state: z.boolean() })),
  'migrate-set-capabilities': nothing,
  'migrate-set-parameters': nothing,
  migrate: nothing,
  'migrate-continue': nothing,
  migrate_cancel: nothing,
  'query-blockstats': z.array(z.object({ stats: z.object({ wr_bytes: z.number() }) })),
  'query-block': z.array(blockDeviceSchema),
  'query-named-block-nodes': z.array(
    z.object({
      'node-name': z.string().optional(),
      drv: z.string().optional(),
      file: z.string().optional(),
      ro: z.boolean().optional(),
      'dirty-bitmaps': z.array(bitmapSchema).optional(),
    }),
  ),
  'query-block-jobs': z.array(
    z.object({ device: z.string(), len: z.number(), offset: z.number(), ready: z.boolean(), status: z.string() }),
  ),
  'query-jobs': z.array(z.object({ id: z.string(), type: z.string(), status: z.string() })),
  'query-block-exports': z.array(z.object({ id: z.string(), type: z.string(), 'node-name': z.string() })),
  'blockdev-add': nothing,
  'blockdev-del': nothing,
  'blockdev-mirror': nothing,
  'qom-get': z.unknown(),
  'device-list-properties': z.array(
    z.object({ name: z.string(), type: z.string(), 'default-value': z.unknown().optional() }),
  ),
  'qom-list': z.array(z.object({ name: z.string(), type: z.string() })),
  'query-cpus-fast': z.array(
    z.object({
      'cpu-index': z.number(),
      'qom-path': z.string(),
      props: z.record(z.string(), z.number()).optional(),
    }),
  ),
  'query-kvm': z.object({ enabled: z.boolean() }),
  'query-memory-devices': z.array(
    z.object({ type: z.string(), data: z.looseObject({ id: z.string().optional(), memdev: z.string().optional() }) }),
  ),
  'human-monitor-command': z.string(),
  'nbd-server-start': nothing,
  'nbd-server-stop': nothing,
  'block-export-add': nothing,
  'block-export-del': nothing,
  'block-dirty-bitmap-remove': nothing,
  transaction: nothing,
  block_set_io_throttle: nothing,
  'announce-self': nothing,
  'blockdev-set-active': nothing,
  'migrate-incoming': nothing,
  'nbd-server-add': nothing,
  'drive-mirror': nothing,
  'block-job-cancel': nothing,
  system_powerdown: nothing,
  quit: nothing,
  stop: nothing,
  cont: nothing,
  pmemsave: nothing,
  'calc-dirty-rate': nothing,
  'query-dirty-rate': z.object({
    status: z.string(),
    'calc-time': z.number(),
    'dirty-rate': z.number().optional(),
  }),
} as const satisfies Record<string, z.ZodType>;

export type QmpCommand = keyof typeof QMP_RETURNS;
export type QmpReturn<C extends QmpCommand> = z.infer<(typeof QMP_RETURNS)[C]>;

export const greetingSchema = z.object({ QMP: z.object({ version: QMP_RETURNS['query-version'] }) });

/** One line from QEMU: an answer, a refusal or an event. */
export const messageSchema = z.union([
  z.object({ return: z.unknown(), id: z.number() }),
  z.object({ error: z.object({ class: z.string(), desc: z.string() }), id: z.number().optional() }),
  z.object({
    event: z.string(),
    data: z.looseObject({}).optional(),
    timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
  }),
]);

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** QEMU's own clock, milliseconds since the epoch; the host's clock on a healthy host. */
  readonly atMs: number;
}
