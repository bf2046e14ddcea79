/**
 * An agent of a simulated host: the product's own startAgent() in a life of its own, over the simulated file system, sockets,
 * link, processes and Temporal. A supervisor starts it again when it has ended, as systemd would.
 */
import { constants } from 'node:fs';
import { PROCESS_OPTIONS, type ProcessOptions } from '../../src/model/options';
import { createFsModules, type Module, only } from './fs-modules';
import { createGlobals, cryptoModule, osModule } from './globals';
import type { SimHost } from './host';
import type { Life } from './life';
import type { Load, Program, Replacement } from './loader';
import { childProcessModule, nbdClientModule, workerThreadsModule } from './process-modules';
import { netModule, ProcessSockets } from './sim-net';
import { senderModules } from './sim-senders';
import { transportModules } from './sim-transport';
import type { Activities, SimTemporal } from './temporal/sim-temporal';

type Open = (path: string, flags: number) => unknown;

const FREE_BYTES = 2 ** 36;
const SWEEP_EVERY_MS = 20_000;

function optionsOf(host: SimHost): ProcessOptions {
  const defaults = Object.fromEntries(
    Object.entries(PROCESS_OPTIONS).map(([name, { default: value }]) => [name, value]),
  ) as ProcessOptions;
  return {
    ...defaults,
    hostId: host.name,
    dataDir: host.dataDir,
    listenAddress: `10.0.0.${host.name}`,
    workerThreads: 1,
    sweepInterval: SWEEP_EVERY_MS,
    keepBaselineCopy: 'never',
  };
}

export interface AgentSurroundings {
  readonly program: Program;
  readonly temporal: SimTemporal;
  /** Hears what an agent logs. */
  readonly log: (host: SimHost, level: string, fields: unknown, text: string) => void;
  /** It ends by itself: what its process would say on the way out. */
  readonly failed: (host: SimHost, error: unknown) => void;
}

export class SimAgent {
  readonly life: Life;
  readonly host: SimHost;

  constructor(host: SimHost, surroundings: AgentSurroundings) {
    this.host = host;
    this.life = host.start('agent', ['dwcp', 'agent']);
    this.life.post('starts', () => this.#start(surroundings));
  }

  #start({ program, temporal, log, failed }: AgentSurroundings): void {
    const { host, life } = this;
    const say =
      (level: string) =>
      (fields: unknown, text?: string): void =>
        log(host, level, fields, text ?? '');
    const ended = (error: unknown): void => {
      if (!life.alive) return;
      failed(host, error);
      life.kill();
    };
    const load = program.start(
      createGlobals(life, host.scheduler, {
        hostName: host.name,
        clockOffsetMs: () => host.clockOffsetMs,
        kill: (pid, signal) => host.signal(pid, signal),
      }),
      replacementsFor(host, life, program, temporal),
    );
    const startAgent = load('src/agent/agent').startAgent as (
      options: ProcessOptions,
      log: unknown,
    ) => Promise<{ ended: Promise<void> }>;
    startAgent(optionsOf(host), {
      info: say('info'),
      warn: say('warn'),
      error: say('error'),
      debug: () => undefined,
      trace: () => undefined,
    }).then((agent) => agent.ended.then(() => ended('it has stopped'), ended), ended);
  }
}

function replacementsFor(host: SimHost, life: Life, program: Program, temporal: SimTemporal): Replacement {
  const { scheduler, network } = host;
  const files = host.files(life);
  const fs = createFsModules(life, files, () => FREE_BYTES);
  const sockets = new ProcessSockets(life, files, scheduler);
  const fixed: Record<string, Module> = {
    'node:fs': fs.fs,
    'node:fs/promises': fs.promises,
    'node:net': netModule(life, sockets),
    // No guest here has a port that is forwarded by it.
    'node:dgram': only('node:dgram', {}),
    'node:crypto': cryptoModule(scheduler),
    'node:os': osModule(host.name),
    'node:child_process': childProcessModule(host, life, files),
    'node:worker_threads': workerThreadsModule(life, program, { fs: fs.fs, systemCalls: fs.systemCalls }),
    'src/store/system-calls': fs.systemCalls,
    'src/system/image-roots': {
      addImageRoots: () => undefined,
      openImage: (path: string, flags = constants.O_RDONLY) => (fs.promises.open as Open)(path, flags),
      openImageSync: (path: string, flags: number) => (fs.fs.openSync as Open)(path, flags),
    },
    'src/hypervisor/nbd-client': nbdClientModule(host, life),
    ...transportModules(network, life),
    ...temporalModules(life, temporal),
    ...STUBS,
  };
  let senders: Readonly<Record<string, Module>> | undefined;
  const replacement: Replacement = (name, load: Load) => {
    if (name === 'src/sync/guest/guest-sender' || name === 'src/sync/source/image-sender')
      return (senders ??= senderModules({ life, files, load }))[name];
    const found = fixed[name];
    if (!found && name.startsWith('node:') && !REAL.has(name)) throw new Error(`sim: ${name} is not simulated`);
    return found;
  };
  return replacement;
}

/** Modules of Node that touch nothing outside a process. */
const REAL = new Set([
  'node:path',
  'node:util',
  'node:events',
  'node:module',
  'node:stream',
  'node:buffer',
  'node:zlib',
  'node:async_hooks',
  'node:assert',
  'node:url',
  'node:string_decoder',
]);

function temporalModules(life: Life, temporal: SimTemporal): Readonly<Record<string, Module>> {
  const { modules } = temporal;
  const client = temporal.clientOf(life);
  class Client {
    readonly options = client.options;
    readonly workflow = client.workflow;
    readonly workflowService = { describeTaskQueue: () => Promise.resolve({ pollers: [] }) };
  }
  const create = ({
    taskQueue,
    activities,
  }: {
    readonly taskQueue: string;
    readonly activities: Activities;
  }): Promise<unknown> => {
    temporal.registerWorker(life, taskQueue, activities);
    return Promise.resolve({ run: () => new Promise(() => undefined), shutdown: () => undefined });
  };
  return {
    ...(modules as Readonly<Record<string, Module>>),
    '@temporalio/client': { ...modules['@temporalio/client'], Client },
    '@temporalio/worker': {
      Runtime: { install: () => undefined },
      Worker: { create },
      NativeConnection: { connect: () => Promise.resolve({ close: () => Promise.resolve() }) },
    },
    // Nothing is encrypted here.
    'src/control/payload-codec': { clientConverter: () => ({}), workerConverter: () => ({}) },
    'src/control/connection': { temporalTarget: () => ({ address: 'temporal', namespace: 'default' }) },
    'src/control/worker-connection': { connectWorker: () => Promise.resolve({ close: () => Promise.resolve() }) },
  };
}

class SimSlab {
  readonly sizeBytes = 1;
  readonly freeBytes = 1;
}

/** Parts of an agent that a hand-over has nothing to do with. */
const STUBS: Readonly<Record<string, Module>> = {
  'src/sync/codec/self-test': { selfTest: () => Promise.resolve() },
  'src/telemetry/metrics': {
    agentMetrics: () => ({ registry: {}, imageTransferred: () => undefined }),
    serveMetrics: () => Promise.resolve({ port: 0, close: () => Promise.resolve() }),
  },
  'src/telemetry/logger': { temporalLogger: () => ({}) },
  // For people: nothing of the product is decided by it.
  'src/store/audit-log': {
    AuditLog: { open: () => Promise.resolve({ head: '', write: () => undefined, close: () => Promise.resolve() }) },
  },
  'src/transport/slab': { Slab: SimSlab },
  // Who is who, and by whose word: the link and Temporal of this world carry what they are given.
  'src/trust/host-security': { trustOf: () => undefined, openSecurity: () => undefined },
};
