/** An input of each activity as workflows give it: of a migration m1 of the VM vm, from host a to host b. */
import type { ActivityName } from '../../src/model/activity-inputs';
import { MIGRATION_OPTIONS, withDefaults } from '../../src/model/options';
import { NO_HARDWARE } from './hardware';

const options = withDefaults(MIGRATION_OPTIONS, {});
export const destination = {
  hostId: 'b',
  address: 'b.example',
  port: 9876,
  grant: { purpose: 'session', subject: 'm1', holder: 'a', expiresAtMs: 1, token: 'x' },
};
export const link = { migrationId: 'm1', vmId: 'vm', destination, options, mode: 'migrate' };
export const image = { imageId: 'vda', kind: 'disk', sizeBytes: 65_536 };
const measured = { rttMs: 1, bandwidthBytesPerSecond: 1e6 };
const start = {
  tier: 'local',
  compress: true,
  maxLevel: 1,
  minStreams: 4,
  maxStreams: 16,
  initialStreams: 4,
  reason: '',
};
export const guest = {
  command: ['qemu-system-x86_64'],
  qemuVersion: '10.0.0',
  hardware: NO_HARDWARE,
  machine: 'pc-q35-10.0',
  needsFiles: [{ path: '/iso/x', use: 'drive', sizeBytes: 1, key: '0'.repeat(64), mark: 'a'.repeat(32) }],
  ramBlocks: [{ id: 'pc.ram', usedBytes: 4096 }],
  sharedFiles: [],
  diskPaths: {},
};
const handOver = { ...link, destinationHost: 'b' };

export const GOOD: Readonly<Record<ActivityName, unknown>> = {
  prepareSource: { migrationId: 'm1', vmId: 'vm', claim: true, force: false, ahead: options },
  establishStreams: link,
  detectTier: link,
  computePlan: { ...link, images: [image], link: measured, level: 3 },
  transferImage: { ...link, image, start, link: measured, disks: [{ ...image, number: 0 }] },
  standardTransferImage: { ...link, image },
  guestRounds: { ...link, images: [image], dwcp: { start, link: measured } },
  guestSwitchover: handOver,
  handedOverRoots: { migrationId: 'm1', vmId: 'vm' },
  handedOverWord: { migrationId: 'm1', vmId: 'vm' },
  releaseGuest: { ...handOver, taken: { generation: 1, responds: true } },
  switchover: { ...handOver, roots: { vda: 'ab12' } },
  handOver: { ...handOver, roots: {} },
  release: { ...handOver, generation: 1 },
  keepWarm: { ...link, images: [image] },
  rollBackSource: { migrationId: 'm1', vmId: 'vm', destinationAbandoned: false, note: 'why' },
  closeSource: { migrationId: 'm1' },
  setBandwidthLimit: { migrationId: 'm1', bytesPerSecond: 0 },
  surveyLink: { sessionId: 'link-1', destination, streams: 8, seconds: 5 },
  connectPeer: { destination, streams: 8 },
  refreshDictionary: { vmType: 'web' },
  prepareDestination: {
    migrationId: 'm1',
    vmId: 'vm',
    vmType: 'web',
    tenant: 'acme',
    mode: 'migrate',
    fence: 1,
    generation: 0,
    sourceHost: 'a',
    images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 65_536 }],
    allocatedBytes: { vda: 4096 },
    guest,
    stoppedGuest: { command: ['qemu'], diskPaths: { vda: '/vda' }, rawDisks: ['vda'], needsFiles: [] },
    diskMap: 'vda=/dev/vg0/web',
    overwriteDisks: true,
    force: false,
  },
  checkBaseline: { migrationId: 'm1', imageId: 'vda', useBaseline: true },
  abandonDestination: { migrationId: 'm1', vmId: 'vm', fence: 1, mode: 'warm' },
  takeOver: { migrationId: 'm1', vmId: 'vm', roots: { vda: 'ab12' } },
  keepBaselineCopies: { vmId: 'vm', images: [{ imageId: 'vda' }] },
  pruneBaselines: { limitBytes: 0 },
  grantPeer: { sourceHost: 'a' },
  grantLink: { sessionId: 'link-1', sourceHost: 'a' },
  authorise: { mode: 'migrate', migrationId: 'm1', vmId: 'vm', sourceHost: 'a', destinationHost: 'b' },
  recordOutcome: { migrationId: 'm1', outcome: 'completed', path: 'dwcp', speedup: 2, totalSeconds: 1 },
  knownHosts: undefined,
};
