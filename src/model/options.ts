/**
 * The one table of options: type, unit, range, default, help. Flags, DWCP_* variables, the configuration file, the
 * request's schema (option-schemas.ts) and docs/configuration.md are made from it; nothing of it is written twice.
 */
import { parseDiskMap } from './disk-map';
import type { OptionSpec } from './option-spec';
import { GUEST_OPTIONS } from './options-of-guests';
import { NETWORK_OPTIONS } from './options-of-networks';
import { ownValue } from './own-value';
import { GIB, MEGABYTE, MIB } from './units';

/** What one migration takes; every name may stand in a request. */
export const MIGRATION_OPTIONS = {
  enableDwcp: { type: 'boolean', default: true, help: 'Use DWCP; false takes the standard transfer from the start' },
  enableFallback: {
    type: 'boolean',
    default: true,
    help: 'Take the standard transfer when transport or encoder fail for good',
  },
  minStreams: {
    type: 'integer',
    unit: 'streams',
    min: 1,
    max: 256,
    default: 4,
    help: 'Fewest TCP streams of a session',
  },
  maxStreams: {
    type: 'integer',
    unit: 'streams',
    min: 1,
    max: 256,
    default: 256,
    help: 'Most TCP streams of a session',
  },
  initialStreams: {
    type: 'integer',
    unit: 'streams',
    min: 1,
    max: 256,
    default: 16,
    help: 'Streams to start with, within the tier',
  },
  enableDelta: { type: 'boolean', default: true, help: 'Send changed blocks as a delta against the version held' },
  deltaThreshold: {
    type: 'number',
    min: 0,
    max: 1,
    default: 0.7,
    help: 'A delta that takes more than this share of the pages it replaces is not sent',
  },
  enableDictionary: { type: 'boolean', default: true, help: 'Use trained dictionaries where both sides hold them' },
  enableCompression: { type: 'boolean', default: true, help: 'Compress with zstd where it pays' },
  enableDeltaSync: {
    type: 'boolean',
    default: true,
    help: 'Build on the baseline the destination holds; false sends all anew',
  },
  targetSpeedup: {
    type: 'number',
    min: 0,
    max: 1000,
    default: 2.5,
    help: 'Goal: times faster than the standard transfer; the result says met or missed',
  },
  targetTransferRate: {
    type: 'rate',
    unit: 'bytes/s',
    min: 0,
    default: (20_000 * MEGABYTE) / 60,
    help: 'Goal: image bytes a second (20 GB/min); the result says met or missed',
  },
  maxDowntimeMs: {
    type: 'duration',
    unit: 'ms',
    min: 0,
    max: 3_600_000,
    default: 30_000,
    help: 'Longest pause of a running guest',
  },
  bandwidthLimit: {
    type: 'rate',
    unit: 'bytes/s',
    min: 0,
    default: 100 * MEGABYTE,
    help: 'Most that all streams together may send; 0 is no limit',
  },
  memoryIterations: {
    type: 'integer',
    unit: 'rounds',
    min: 1,
    max: 100,
    default: 5,
    help: 'Most memory rounds before the switchover of a running guest',
  },
  autoConverge: {
    type: 'boolean',
    default: true,
    help: 'Slow a guest down that changes memory or disks faster than the link carries it',
  },
  dirtyPageThreshold: {
    type: 'integer',
    unit: 'pages',
    min: 0,
    default: 1000,
    help: 'A round that leaves fewer dirty pages is the last',
  },
  priority: {
    type: 'integer',
    min: 1,
    max: 10,
    default: 5,
    help: 'Urgency against other migrations; 10 is the most urgent',
  },
  diskMap: {
    type: 'text',
    default: '',
    help:
      'Where disks come to lie at the destination, such as vda=/dev/vg0/web-7,vdb=file: a block device or a file below the ' +
      'destination’s imageRoots, or its own image folder (file). Empty: where the VM has been there before, else as its diskPlaces says',
  },
  overwriteDisks: {
    type: 'boolean',
    default: false,
    help: 'Overwrite what a block device holds that a disk is put on, whatever it is; without it only zeros and what this VM has left there',
  },
  force: { type: 'boolean', default: false, help: 'Override the refusals that may be overridden' },
} as const satisfies Record<string, OptionSpec>;

/** What a process (agent, control worker, embedded server, command) takes. */
export const PROCESS_OPTIONS = {
  hostId: {
    type: 'text',
    default: '',
    help: 'Name of this host; its task queue is host.<hostId>. Empty: the machine’s host name',
  },
  dataDir: {
    type: 'text',
    default: '',
    help: 'Folder for VMs, images, baselines and journals. Empty: ~/.local/share/dwcp/<hostId>',
  },
  listenAddress: { type: 'text', default: '0.0.0.0', help: 'Address of the data-plane listener' },
  port: { type: 'integer', min: 1, max: 65_535, default: 9876, help: 'Port of the data-plane listener' },
  advertiseAddress: {
    type: 'text',
    default: '',
    help:
      'Address other agents dial; several, separated by commas, are paths of their own and used at the same time. ' +
      'Empty: listenAddress, or the host name where that is a wildcard',
  },
  sourceAddresses: {
    type: 'text',
    default: '',
    help:
      'Addresses of this host that its migrations go out from, separated by commas: the first on the destination’s ' +
      'first path, the second on its second, in turn where there are fewer. Empty: as the routing table says',
  },
  metricsAddress: { type: 'text', default: '127.0.0.1', help: 'Address of the Prometheus endpoint' },
  metricsPort: {
    type: 'integer',
    min: 0,
    max: 65_535,
    default: 0,
    help: 'Port of the Prometheus endpoint; 0 takes none',
  },
  hostBandwidthLimit: {
    type: 'rate',
    unit: 'bytes/s',
    min: 0,
    default: 0,
    help: 'Most that all migrations leaving this host may send together, shared by priority; 0 is no limit',
  },
  bandwidthSchedule: {
    type: 'text',
    default: '',
    help: 'Other host limits by the hour, such as "08:00-18:00 20MB/s, 22:00-06:00 0"; hostBandwidthLimit holds where none of them does',
  },
  workerThreads: {
    type: 'integer',
    min: 0,
    max: 64,
    default: 0,
    help: 'Threads that hash and compress; 0 is one a processor',
  },
  bufferMemory: {
    type: 'bytes',
    unit: 'bytes',
    min: 16 * MIB,
    max: 4 * GIB,
    default: 64 * MIB,
    help: 'Memory for batches in flight, per agent and direction',
  },
  bookkeepingMemory: {
    type: 'bytes',
    unit: 'bytes',
    min: 16 * MIB,
    max: 256 * GIB,
    default: 2 * GIB,
    help: 'Most memory for hashes and marks of the images that are being received: about 300 KiB for each GiB of them',
  },
  storeLimit: {
    type: 'bytes',
    unit: 'bytes',
    min: 0,
    default: 0,
    help: 'Most that baselines may take on disk; 0 is no limit',
  },
  vmStoreLimit: {
    type: 'bytes',
    unit: 'bytes',
    min: 0,
    default: 0,
    help: 'Most that the baselines of one VM may take on disk; 0 is no limit',
  },
  baselineKeyFile: {
    type: 'text',
    default: '',
    help:
      'File of 32 bytes or 64 hexadecimal digits, readable by its owner alone: what is kept of VMs that are away, ' +
      'and copies for deltas, are encrypted with it. Empty: not encrypted',
  },
  payloadKeyFile: {
    type: 'text',
    default: '',
    help:
      'File of keys, readable by its owner alone, that what Temporal keeps is encrypted with: 32 bytes, or a line for each key ' +
      '(64 hexadecimal digits, or base64). The first encrypts, all of them decrypt; agents, control worker and clients need the ' +
      'same. Empty: not encrypted',
  },
  keepBaselineCopy: {
    type: 'text',
    default: 'auto',
    help: 'Keep what arrived beside the VM, for deltas on the way back: auto (clone, or copy where space allows), clone, never',
  },
  ...GUEST_OPTIONS,
  ...NETWORK_OPTIONS,
  acceptDwcp: {
    type: 'boolean',
    default: true,
    help: 'Accept DWCP sessions; false leaves this host to the standard transfer',
  },
  pruneInterval: {
    type: 'duration',
    unit: 'ms',
    min: 60_000,
    default: 3_600_000,
    help: 'How often the control worker’s schedule has baselines pruned',
  },
  sweepInterval: {
    type: 'duration',
    unit: 'ms',
    min: 1000,
    default: 60_000,
    help: 'How often an agent looks for what closed migrations left',
  },
  idleStreamTtl: {
    type: 'duration',
    unit: 'ms',
    min: 1000,
    default: 600_000,
    help: 'How long streams established ahead are kept',
  },
  trustDir: {
    type: 'text',
    default: '',
    help: 'Folder of the keys by which hosts, the control plane and operators know one another. Empty: ~/.local/share/dwcp/trust',
  },
  controlAuditDir: {
    type: 'text',
    default: '',
    help:
      'Folder of the control worker’s audit log: what it has authorised for whom, and what not; each of several workers has a ' +
      'folder of its own in it. Empty: ~/.local/share/dwcp/control',
  },
  insecureDataPlane: {
    type: 'boolean',
    default: false,
    help: 'Plain TCP, where nobody proves anything: for measurements on a loopback address, and refused on any other',
  },
  tlsCert: {
    type: 'text',
    default: '',
    help:
      'Certificate file (PEM) of this agent in place of the one it makes for itself, with the alternative name ' +
      'URI:spiffe://dwcp/host/HOSTID; with tlsKey and tlsCa',
  },
  tlsKey: { type: 'text', default: '', help: 'Private key file (PEM), readable by its owner alone' },
  tlsCa: {
    type: 'text',
    default: '',
    help: 'Certificate authority file (PEM), one or several: hosts are those that it has certified, in place of pinned keys',
  },
  tlsCrl: { type: 'text', default: '', help: 'File of the authority’s lists of revoked certificates (PEM)' },
  debug: { type: 'boolean', default: false, help: 'Debug logs' },
} as const satisfies Record<string, OptionSpec>;

type ValueOf<S extends OptionSpec> = S['type'] extends 'boolean' ? boolean : S['type'] extends 'text' ? string : number;
export type Values<T extends Record<string, OptionSpec>> = { -readonly [K in keyof T]: ValueOf<T[K]> };
export type MigrationOptions = Values<typeof MIGRATION_OPTIONS>;
export type ProcessOptions = Values<typeof PROCESS_OPTIONS>;

/** Defaults below, written values above them; unknown names were refused before. */
export function withDefaults<T extends Record<string, OptionSpec>>(table: T, given: Partial<Values<T>>): Values<T> {
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) {
    const written = ownValue<unknown>(given, name);
    values[name] = written ?? spec.default;
  }
  return values as Values<T>;
}

/** Defaults filled and conflicts refused (RangeError, for the border to turn into INVALID_INPUT). */
export function compileMigrationOptions(given: Partial<MigrationOptions>): MigrationOptions {
  const options = withDefaults(MIGRATION_OPTIONS, given);
  if (options.minStreams > options.maxStreams) {
    throw new RangeError(`minStreams (${options.minStreams}) is more than maxStreams (${options.maxStreams})`);
  }
  parseDiskMap(options.diskMap);
  return options;
}
