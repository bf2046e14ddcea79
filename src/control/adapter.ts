/**
 * The migration adapter: images from this process straight to an agent, without Temporal and without a VM changing
 * hands. For programs that have a flow of their own and want DWCP's transport and encoding, with the same verification
 * and the same resume (call it again under the same session id).
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { homedir, hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { DwcpError, messageOf, toDwcpError } from '../model/errors';
import type { ImageKind } from '../model/ids';
import { type ImageSpec, imageSpecSchema } from '../model/image';
import {
  compileMigrationOptions,
  MIGRATION_OPTIONS,
  type MigrationOptions,
  PROCESS_OPTIONS,
  withDefaults,
} from '../model/options';
import { selectLevelAndStreams } from '../model/tiers';
import { GRANT_LIFETIME_MS } from '../model/timing';
import { BaseStore } from '../store/base-disks';
import { BaselineStore } from '../store/baselines';
import { DIRECT_DICTIONARY, DictionaryStore, vmTypeOf } from '../store/dictionaries';
import { MoveHistory } from '../store/move-history';
import { PathHistory } from '../store/path-history';
import { CodecPool } from '../sync/codec/codec-pool';
import { ScanFeed } from '../sync/feeds/block-feed';
import { ImageSender, type SendProgress, type SentImage } from '../sync/source/image-sender';
import type { SourceContext } from '../sync/source/source-context';
import { SourceMigration } from '../sync/source/source-migration';
import { type TrainingReport, trainDictionary } from '../sync/upkeep/train-dictionary';
import { mintGrant } from '../transport/grants';
import { PeerPool } from '../transport/peer-pool';
import { SharedLimit } from '../transport/shared-limit';
import { Slab } from '../transport/slab';
import { type HostSecurity, openSecurity } from '../trust/host-security';
import { TrustFolder, trustFolderOf } from '../trust/trust-folder';

/** Where to: an agent's data plane, and the agent's key (`<dataDir>/agent.key` on that host). */
export interface AdapterDestination {
  /** Which host has to answer there. */
  readonly hostId: string;
  readonly address: string;
  readonly port?: number;
  /** Further addresses of the same agent, used at the same time. */
  readonly furtherPaths?: readonly { readonly address: string; readonly port: number }[];
  readonly agentKey: Buffer;
  /** Sessions of one id resume one another; without it every call is a session of its own. */
  readonly sessionId?: string;
}

/** An image: the path of a file, or its bytes. */
export type AdapterImage = string | Uint8Array;

export interface AdapterConfig {
  readonly dwcp?: Partial<MigrationOptions>;
  readonly workerThreads?: number;
  readonly bufferMemory?: number;
  /** Folder of the keys by which hosts know one another. Without it the user's own, as agents have it. */
  readonly trustDir?: string;
  /** Plain TCP to agents that want it so, on loopback. */
  readonly insecureDataPlane?: boolean;
  /** Folder for the sender's own baselines, which shorten what the destination has to tell. Without it one in the user's state folder. */
  readonly dataDir?: string;
  /** Hears one line for each decision about a transfer. */
  readonly explain?: (line: string) => void;
}

export interface MigrationAdapter {
  /**
   * Moves a memory image.
   * @throws DwcpError; what has arrived stays at the destination, and a call with the same session id goes on there
   */
  migrateVmMemory(
    vmId: string,
    memory: AdapterImage,
    destination: AdapterDestination,
    onProgress?: (progress: SendProgress) => void,
    signal?: AbortSignal,
  ): Promise<SentImage>;
  /** Moves a disk image, likewise. */
  migrateVmDisk(
    vmId: string,
    blocks: AdapterImage,
    destination: AdapterDestination,
    onProgress?: (progress: SendProgress) => void,
    signal?: AbortSignal,
  ): Promise<SentImage>;
  /** Trains a dictionary for VMs of a type from samples (pages of 4 KiB, or content cut into such), and keeps it where it gains. */
  trainDictionary(vmType: string, samples: readonly Buffer[]): Promise<TrainingReport>;
  /** Ends worker threads and idle connections. */
  close(): Promise<void>;
}

const PROGRESS_EVERY_MS = 250;

export function createMigrationAdapter(config: AdapterConfig = {}): MigrationAdapter {
  const options = compileOrRefuse(config.dwcp ?? {});
  const process = withDefaults(PROCESS_OPTIONS, {
    ...(config.workerThreads !== undefined && { workerThreads: config.workerThreads }),
    ...(config.bufferMemory !== undefined && { bufferMemory: config.bufferMemory }),
  });
  const pool = new CodecPool(process.workerThreads);
  const slab = new Slab(process.bufferMemory);
  const dataDir = config.dataDir ?? defaultDataDir();
  const store = new BaselineStore(dataDir);
  const dictionaries = new DictionaryStore(dataDir);
  const limit = new SharedLimit(process.hostBandwidthLimit);
  let epoch = 0;
  const hostId = `direct-${hostname()
    .replace(/[^A-Za-z0-9._-]/g, '-')
    .slice(0, 80)}`;
  const open = async (): Promise<Opened> => {
    const security = config.insecureDataPlane === true ? undefined : await securityOf(hostId, config);
    const peers = new PeerPool(process.idleStreamTtl, security?.peers);
    const context: SourceContext = {
      hostId,
      peers,
      pool,
      slab,
      store,
      dictionaries,
      bases: new BaseStore(dataDir),
      limit,
      history: new PathHistory(dataDir),
      moves: new MoveHistory(dataDir),
      nextEpoch: () => (epoch = Math.max(Date.now(), epoch + 1)),
      ...(config.explain && { explain: (_id, line) => unheard(() => config.explain?.(line)) }),
    };
    return {
      context,
      close: () => {
        peers.close();
        security?.close();
      },
    };
  };
  let opened: Promise<Opened> | undefined;
  const ready = async (): Promise<SourceContext> => {
    opened ??= open();
    // Another call may find what this one has missed.
    opened.catch(() => (opened = undefined));
    return (await opened).context;
  };

  async function move({ kind, vmId, image, destination, hear, signal }: Move): Promise<SentImage> {
    const sessionId = destination.sessionId ?? randomUUID();
    const grant = mintGrant(
      destination.agentKey,
      { purpose: 'session', subject: sessionId, holder: hostId },
      GRANT_LIFETIME_MS,
    );
    const migration = new SourceMigration(
      sessionId,
      {
        hostId: destination.hostId,
        address: destination.address,
        port: destination.port ?? PROCESS_OPTIONS.port.default,
        grant,
        ...(destination.furtherPaths && { furtherPaths: destination.furtherPaths }),
      },
      options,
      await ready(),
    );
    const input = await asFile(image);
    let arrived = false;
    try {
      const spec = imageSpecSchema.parse({ imageId: kind, kind, sizeBytes: (await stat(input.path)).size });
      const sent = await send(migration, { vmId, image: spec, path: input.path, hear }, signal);
      arrived = true;
      return sent;
    } catch (error) {
      throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
    } finally {
      // What nobody can go on with is ended at once; where that is not heard, the agent ends it after a day.
      if (arrived || destination.sessionId === undefined)
        await migration.openSession?.control.request('abandon', { vmId, fence: 0 }).catch(() => undefined);
      migration.close();
      await input.dispose();
    }
  }

  async function send(
    migration: SourceMigration,
    { vmId, image, path, hear }: Pick<Move, 'vmId' | 'hear'> & { readonly image: ImageSpec; readonly path: string },
    signal: AbortSignal,
  ): Promise<SentImage> {
    const session = await migration.sessionPatiently(signal);
    await session.control.request('prepare', {
      record: {
        migrationId: migration.migrationId,
        vmId,
        mode: 'direct',
        fence: 0,
        generation: 0,
        sourceHost: hostId,
        images: [image],
      },
    });
    await session.establish(options.minStreams);
    const link = await migration.measureLink();
    const start = selectLevelAndStreams(link, options, options.enableCompression);
    const feed = await ScanFeed.open(path, image.sizeBytes);
    const sender = new ImageSender(migration, {
      vmId,
      image,
      path,
      feed,
      start,
      options,
      linkBytesPerSecond: link.bandwidthBytesPerSecond,
    });
    const tell = (): void => unheard(() => hear(sender.progress));
    const timer = setInterval(tell, PROGRESS_EVERY_MS);
    try {
      const sent = await sender.run(signal);
      await (await migration.sessionPatiently(signal)).control.request('install_image', { imageId: image.imageId });
      tell();
      return sent;
    } finally {
      clearInterval(timer);
      await feed.close();
    }
  }

  return {
    migrateVmMemory: (vmId, image, destination, hear = nobody, signal = never()) =>
      move({ kind: 'memory', vmId, image, destination, hear, signal }),
    migrateVmDisk: (vmId, image, destination, hear = nobody, signal = never()) =>
      move({ kind: 'disk', vmId, image, destination, hear, signal }),
    trainDictionary: (vmType, samples) =>
      trainDictionary({ ...DIRECT_DICTIONARY, vmType: vmTypeOf(vmType) }, Buffer.concat(samples), dictionaries, pool),
    close: async () => {
      await opened?.then((ends) => ends.close()).catch(() => undefined);
      await pool.close();
    },
  };
}

interface Move {
  readonly kind: ImageKind;
  readonly vmId: string;
  readonly image: AdapterImage;
  readonly destination: AdapterDestination;
  readonly hear: (progress: SendProgress) => void;
  readonly signal: AbortSignal;
}

interface Opened {
  readonly context: SourceContext;
  close(): void;
}

/** As agents of this user have it; all adapters of a user are one host to others. */
async function securityOf(hostId: string, { trustDir = '' }: AdapterConfig): Promise<HostSecurity> {
  const folder = TrustFolder.make(trustFolderOf({ trustDir }));
  const ownFolder = join(folder.path, 'direct');
  const tls = { tlsCert: '', tlsKey: '', tlsCa: '', tlsCrl: '' };
  return openSecurity({ hostId, ownFolder, folder, tls }, () => undefined);
}

const nobody = (): void => undefined;
const never = (): AbortSignal => new AbortController().signal;

/** The user's own: in a folder that all share another user could have made it before. */
function defaultDataDir(): string {
  return join(process.env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state'), 'dwcp', 'adapter');
}

/** A caller's own function that fails ends no transfer. */
function unheard(tell: () => void): void {
  try {
    tell();
  } catch {
    // Its own affair: there is nobody here who could tell it.
  }
}

function compileOrRefuse(given: Partial<MigrationOptions>): MigrationOptions {
  for (const name of Object.keys(given))
    if (!Object.hasOwn(MIGRATION_OPTIONS, name)) throw new DwcpError('INVALID_INPUT', `There is no option ${name}`);
  try {
    return compileMigrationOptions(given);
  } catch (cause) {
    throw new DwcpError('INVALID_INPUT', messageOf(cause), { cause });
  }
}

/** An image given as bytes goes through a file of its own: worker threads read images by descriptor. */
async function asFile(image: AdapterImage): Promise<{ path: string; dispose: () => Promise<void> }> {
  if (typeof image === 'string') return { path: image, dispose: () => Promise.resolve() };
  const folder = await mkdtemp(join(tmpdir(), 'dwcp-image-'));
  const path = join(folder, 'image');
  await writeFile(path, image);
  return { path, dispose: () => rm(folder, { recursive: true, force: true }) };
}
