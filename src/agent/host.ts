/**
 * A host's parts put together: store, journals, worker threads, data plane. No Temporal: the agent adds that, and tests
 * and the library's adapter use a host as it is.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { HostDriver } from '../hypervisor/host-driver';
import { foldersOf, type GuestPolicy, guestPolicyOf } from '../hypervisor/qemu/guest-policy';
import { clearRehearsals } from '../hypervisor/qemu/rehearse';
import { limitAt, parseBandwidthSchedule, type ScheduleEntry } from '../model/bandwidth-schedule';
import { DwcpError, toDwcpError } from '../model/errors';
import type { Hooks } from '../model/hooks';
import { hostIdSchema } from '../model/ids';
import { listOf } from '../model/option-text';
import type { ProcessOptions } from '../model/options';
import { AuditLog } from '../store/audit-log';
import { refusalsOf, type WriteRefusal } from '../store/audit-refusals';
import { BaseStore } from '../store/base-disks';
import { BaselineStore } from '../store/baselines';
import { DictionaryStore } from '../store/dictionaries';
import { readIfThere, takeOverFolder, writeDurably } from '../store/durable-file';
import { lockFolder } from '../store/folder-lock';
import { beginInstance, epochsOf, type Instance } from '../store/instance';
import { MoveHistory } from '../store/move-history';
import { OwnershipJournal } from '../store/ownership-journal';
import { PathHistory } from '../store/path-history';
import { SealingKey } from '../store/sealing-key';
import { RUN_FOLDER, TRY_FOLDER, VmRegistry } from '../store/vm-registry';
import { CodecPool } from '../sync/codec/codec-pool';
import { Bookkeeping } from '../sync/destination/bookkeeping';
import { DestinationHub } from '../sync/destination-hub';
import type { Advertised, SourceContext } from '../sync/source/source-context';
import { copyPathOf } from '../sync/upkeep/baseline-copy';
import { BaselineSealer } from '../sync/upkeep/baseline-sealer';
import { addImageRoots } from '../system/image-roots';
import { DataPlaneListener } from '../transport/endpoint';
import { RELEASE } from '../transport/hello';
import { PeerPool } from '../transport/peer-pool';
import { SharedLimit } from '../transport/shared-limit';
import { Slab } from '../transport/slab';
import { type HostSecurity, openSecurity, trustOf } from '../trust/host-security';
import { auditedAdmission } from './audited-admission';
import { tellOfLine, tellOfStart } from './hook-moments';
import { HostHooks } from './hooks';

const SCHEDULE_EVERY_MS = 10_000;

/** Where a host says what its callers have no answer for. */
export interface HostSays {
  readonly explain?: SourceContext['explain'];
  readonly warn?: (error: DwcpError) => void;
}

export interface HostParts {
  readonly hostId: string;
  readonly dataDir: string;
  readonly instance: Instance;
  readonly key: Buffer;
  /** Undefined with insecureDataPlane. */
  readonly security: HostSecurity | undefined;
  readonly advertised: Advertised;
  readonly registry: VmRegistry;
  readonly ownership: OwnershipJournal;
  readonly hooks: Hooks;
  readonly audit: AuditLog;
  /** Writes down who was refused, by whichever door. */
  readonly refused: WriteRefusal;
  readonly store: BaselineStore;
  readonly bases: BaseStore;
  readonly driver: HostDriver;
  readonly guestPolicy: GuestPolicy;
  readonly hub: DestinationHub;
  readonly source: SourceContext;
  /** Bytes of batch memory taken now, per direction. */
  readonly bufferedBytes: () => { readonly sending: number; readonly receiving: number };
  readonly dropConnections: (oneOf?: number) => void;
  readonly close: () => Promise<void>;
}

/** @throws CONFIG_INVALID where it is no name, or one that is reserved */
export function resolveHostId(options: Pick<ProcessOptions, 'hostId'>): string {
  const parsed = hostIdSchema.safeParse(options.hostId || hostname());
  if (parsed.success) return parsed.data;
  throw new DwcpError('CONFIG_INVALID', `hostId: ${parsed.error.issues[0]?.message ?? ''}`);
}

export function resolveDataDir(options: Pick<ProcessOptions, 'hostId' | 'dataDir'>): string {
  return options.dataDir || join(homedir(), '.local', 'share', 'dwcp', resolveHostId(options));
}

/** @throws CONFIG_INVALID where one is not an address of this host: its path would never open, and nobody would know why */
async function assertOwn(addresses: readonly string[]): Promise<void> {
  for (const address of addresses) {
    const probe = createServer();
    await new Promise<void>((resolve, reject) =>
      probe.once('error', reject).listen({ host: address, port: 0 }, resolve),
    ).catch((cause: unknown) => {
      throw new DwcpError('CONFIG_INVALID', `sourceAddresses: ${address} is no address of this host`, {
        cause,
        hint: 'Name addresses that `ip address` shows here, or leave the choice to the routing table',
      });
    });
    probe.close();
  }
}

function advertised({ advertiseAddress, listenAddress }: ProcessOptions, port: number): Omit<Advertised, 'hostId'> {
  const wildcard = ['0.0.0.0', '::', ''].includes(listenAddress);
  const [address = '', ...further] = listOf(advertiseAddress);
  return {
    address: address || (wildcard ? hostname() : listenAddress),
    port,
    ...(further.length > 0 && { furtherPaths: further.map((each) => ({ address: each, port })) }),
  };
}

/** Keeps the host's limit what its schedule says. @returns what ends that; @throws CONFIG_INVALID */
function followSchedule(limit: SharedLimit, { bandwidthSchedule, hostBandwidthLimit }: ProcessOptions): () => void {
  let schedule: readonly ScheduleEntry[];
  try {
    schedule = parseBandwidthSchedule(bandwidthSchedule);
  } catch (error) {
    throw toDwcpError(error, 'CONFIG_INVALID');
  }
  const apply = (): void => {
    const now = new Date();
    const wanted = limitAt(schedule, now.getHours() * 60 + now.getMinutes(), hostBandwidthLimit);
    if (wanted !== limit.rateBytesPerSecond) limit.setRate(wanted);
  };
  apply();
  const timer = setInterval(apply, SCHEDULE_EVERY_MS);
  return () => clearInterval(timer);
}

/** The agent's own secret: grants are signed with it, it never leaves the host. */
async function agentKey(dataDir: string): Promise<Buffer> {
  const path = join(dataDir, 'agent.key');
  const known = await readIfThere(path);
  if (known?.length === 32) return known;
  const key = randomBytes(32);
  await writeDurably(path, key);
  return key;
}

/** Opens a host's parts and starts listening. @throws CONFIG_INVALID where folder or port are taken; what had been opened is closed then */
export async function openHost(options: ProcessOptions, says: HostSays = {}): Promise<HostParts> {
  const opened: (() => unknown)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  try {
    return { ...(await openParts(options, says, opened)), close: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** @param opened takes what closes each part, in the order in which they were opened */
async function openParts(
  options: ProcessOptions,
  { explain, warn = () => undefined }: HostSays,
  opened: (() => unknown)[],
): Promise<Omit<HostParts, 'close'>> {
  const hostId = resolveHostId(options);
  const dataDir = resolveDataDir(options);
  const sourceAddresses = listOf(options.sourceAddresses);
  await assertOwn(sourceAddresses);
  const limit = new SharedLimit(options.hostBandwidthLimit);
  const sealingKey = SealingKey.read(options.baselineKeyFile);
  opened.push(followSchedule(limit, options));
  opened.push(lockFolder(dataDir));
  await clearRehearsals(join(dataDir, TRY_FOLDER));
  await takeOverFolder(dataDir, [RUN_FOLDER]);
  const instance = await beginInstance(dataDir);
  const audit = await AuditLog.open(dataDir, (error) => warn(toDwcpError(error, 'INTERNAL')));
  opened.push(() => audit.close());
  audit.write('agent_started', { hostId, release: RELEASE, instance: instance.instanceId, start: instance.starts });
  opened.push(() => audit.write('agent_stopped'));
  const key = await agentKey(dataDir);
  const trust = trustOf(options);
  const security = trust && (await openSecurity({ hostId, ownFolder: dataDir, folder: trust, tls: options }, warn));
  opened.push(() => security?.close());
  const pool = new CodecPool(options.workerThreads);
  opened.push(() => pool.close());
  const sendingSlab = new Slab(options.bufferMemory);
  const receivingSlab = new Slab(options.bufferMemory);
  const store = new BaselineStore(dataDir, { hostBytes: options.storeLimit, vmBytes: options.vmStoreLimit });
  const sealer = new BaselineSealer(store, pool, sealingKey);
  opened.push(() => sealer.close());
  store.guardWith(sealer);
  const dictionaries = new DictionaryStore(dataDir);
  await dictionaries.removeFormer();
  const bases = new BaseStore(dataDir);
  const hooks = new HostHooks({
    ...{ hostId, dataDir, folder: options.hooksDir || join(dataDir, 'hooks'), withinMs: options.hookTimeout },
    log: (migrationId, line) => explain?.(migrationId, line),
  });
  opened.push(() => hooks.close());
  const ownership = new OwnershipJournal(dataDir, (vmId, entry) => {
    const { state, migrationId, fence, note, movedTo } = entry;
    audit.write('ownership', { vmId, state, migrationId, fence, note, movedTo });
    tellOfLine(hooks, hostId, vmId, entry);
  });
  const imageRoots = foldersOf(options.imageRoots);
  const registry = new VmRegistry(dataDir, imageRoots);
  addImageRoots([registry.imagesFolder, ...imageRoots]);
  const guestPolicy = guestPolicyOf(options, dataDir);
  const driver = new HostDriver((vmId) => registry.runFolder(vmId), guestPolicy);
  for (const { vmId, images } of await registry.list())
    for (const image of images) await rm(copyPathOf(registry.copyPlace(vmId, image)), { force: true });
  const peers = new PeerPool(options.idleStreamTtl, security?.peers);
  const hub: DestinationHub = new DestinationHub(
    {
      hostId,
      key,
      acceptDwcp: options.acceptDwcp,
      slab: receivingSlab,
      giveBack: (connection) => listener.awaitHello(connection, options.idleStreamTtl),
    },
    {
      dataDir,
      store,
      dictionaries,
      bases,
      ownership,
      registry,
      pool,
      bookkeeping: new Bookkeeping(options.bookkeepingMemory),
      activator: driver,
      onStarted: (record, resumedAtMs) => tellOfStart(hooks, hostId, record, resumedAtMs),
    },
  );
  const refused = refusalsOf(audit);
  const admission = auditedAdmission(audit, (hello, connection) => hub.admit(hello, connection), refused);
  const listener: DataPlaneListener = new DataPlaneListener(admission.admit, security?.peers, admission.refused);
  opened.push(() => listener.close());
  opened.push(() => peers.close());
  opened.push(() => hub.close());
  const port = await listener.listen(options.listenAddress, options.port);
  void sealer.sealAll();
  void hooks.tellAgain();
  return {
    hostId,
    dataDir,
    instance,
    key,
    security,
    advertised: { hostId, ...advertised(options, port) },
    registry,
    ownership,
    hooks,
    audit,
    refused,
    store,
    bases,
    driver,
    guestPolicy,
    hub,
    source: {
      hostId,
      peers,
      pool,
      slab: sendingSlab,
      store,
      dictionaries,
      bases,
      limit,
      history: new PathHistory(dataDir),
      moves: new MoveHistory(dataDir),
      nextEpoch: epochsOf(instance),
      sourceAddresses,
      ...(explain && { explain }),
    },
    bufferedBytes: () => ({
      sending: sendingSlab.sizeBytes - sendingSlab.freeBytes,
      receiving: receivingSlab.sizeBytes - receivingSlab.freeBytes,
    }),
    dropConnections: (oneOf) => listener.dropConnections(oneOf),
  };
}
