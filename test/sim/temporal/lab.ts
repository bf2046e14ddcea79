/**
 * A small world for this folder's own test: two hosts whose activities are stand-ins that take simulated time and may be
 * told to fail, wait or misbehave, and a loader of the workflows that replaces no more than Temporal.
 */
import { AsyncResource } from 'node:async_hooks';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { Script } from 'node:vm';
import { activityInfo, cancellationSignal, heartbeat } from '@temporalio/activity';
import { toFailure } from '../../../activities/to-failure';
import type { ErrorCode } from '../../../src/model/error-codes';
import { DwcpError } from '../../../src/model/errors';
import { CONTROL_QUEUE, hostQueue } from '../../../src/model/names';
import { HEARTBEAT_TICK_MS } from '../../../src/model/timing';
import { NO_HARDWARE } from '../../helpers/hardware';
import { type SchedulerOptions, SimScheduler } from '../scheduler';
import { createSimTemporal, type SimTemporal, type SimWorkflowHandle } from './sim-temporal';

const WORKFLOWS = join(__dirname, '..', '..', '..', 'workflows', 'index.js');
const MAX_STEPS = 200_000;

const RESULT = {
  imageId: 'disk',
  kind: 'disk',
  totalBytes: 1_048_576,
  linkBytes: 1000,
  ratio: 1000,
  seconds: 1,
  began: 'empty',
  verified: true,
  root: 'abc',
  streams: 4,
  level: 1,
  batchBytes: 65_536,
  deltaHitRate: 0,
  blocks: {
    zero: 0,
    unchanged: 0,
    full: 16,
    pages: 0,
    runDelta: 0,
    oldPages: 0,
    references: 0,
    resent: 0,
    refused: 0,
  },
  encoder: {
    bytes: { full: 1000, pages: 0, runDelta: 0, oldPages: 0, references: 0, heads: 0 },
    packings: { stored: 0, zstd: 1000, dictionary: 0, numbers: 0, hex: 0, brotli: 0 },
    times: { readMs: 1, chooseMs: 1, deltaMs: 1, packMs: 1 },
  },
  attempts: 1,
};

export interface Host {
  readonly name: string;
  alive: boolean;
}

/** What a stand-in does instead of what it does by itself. */
export type Behaviour = (attempt: number, input: Readonly<Record<string, unknown>>) => unknown;

const REAL_DATE = Date;
const hostRequire = createRequire(__filename);

function load(entry: string, modules: Readonly<Record<string, object>>, nowMs: () => number): object {
  const loaded = new Map<string, { exports: object }>();
  class WorkflowDate extends REAL_DATE {
    static override now = nowMs;
  }
  const file = (path: string): object => {
    const known = loaded.get(path);
    if (known) return known.exports;
    const module = { exports: {} };
    loaded.set(path, module);
    const wrapped = new Script(`(function (require, module, exports, Date) {${readFileSync(path, 'utf8')}\n})`, {
      filename: path,
    }).runInThisContext() as (...args: unknown[]) => void;
    wrapped(
      (name: string): unknown => {
        if (modules[name]) return modules[name];
        if (!name.startsWith('.')) return hostRequire(name) as unknown;
        const at = resolve(dirname(path), name);
        return file(at.endsWith('activities') ? `${at}/index.js` : `${at}.js`);
      },
      module,
      module.exports,
      WorkflowDate,
    );
    return module.exports;
  };
  return file(entry);
}

export class Lab {
  readonly scheduler: SimScheduler;
  readonly temporal: SimTemporal;
  /** Every activity that began and ended, in order: "a prepareSource". */
  readonly ran: string[] = [];
  readonly behaviours = new Map<string, Behaviour>();
  guest = false;
  control: Host;
  readonly hosts = new Map<string, Host>();
  #running = 0;
  /** The most attempts of one activity that ran at once. */
  most = 0;

  /** Without stalls, unless they are asked for: a test says itself what goes wrong. */
  constructor(seed: number, { stallsPerHundred = 0 }: SchedulerOptions = {}) {
    this.scheduler = new SimScheduler(seed, { traced: true, stallsPerHundred });
    this.temporal = createSimTemporal(this.scheduler, (modules) =>
      load(WORKFLOWS, modules, () => this.temporal.workflowNowMs),
    );
    this.control = this.startControl();
    for (const name of ['a', 'b']) this.startHost(name);
  }

  startControl(): Host {
    this.control = { name: 'control', alive: true };
    this.temporal.registerWorker(this.control, CONTROL_QUEUE, {
      recordOutcome: () => Promise.resolve(),
      authorise: () => Promise.resolve({ expiresAtMs: Number.MAX_SAFE_INTEGER }),
    });
    return this.control;
  }

  startHost(name: string): Host {
    const host = { name, alive: true };
    this.hosts.set(name, host);
    this.temporal.registerWorker(
      host,
      hostQueue(name),
      Object.fromEntries(
        Object.entries(this.#stubs()).map(([activity, result]) => [activity, this.#stub(host, activity, result)]),
      ),
    );
    return host;
  }

  kill(name: string): void {
    const host = this.hosts.get(name);
    if (host) host.alive = false;
  }

  migrate(options: Record<string, unknown> = {}): SimWorkflowHandle {
    return this.temporal.startWorkflow('migrateVm', 'migrate-vm:vm', [
      { vmId: 'vm', sourceHost: 'a', destinationHost: 'b', migrationId: 'm1', options },
    ]);
  }

  get run(): SimWorkflowHandle {
    const run = this.temporal.find('migrate-vm:vm');
    if (!run) throw new Error('not started');
    return run;
  }

  /** Steps on until that is so. @throws where it never is */
  async until(condition: () => boolean, what = condition.toString()): Promise<void> {
    await new Promise<void>((done, failed) =>
      setImmediate(() => {
        try {
          for (let steps = 0; !condition(); steps += 1)
            if (steps > MAX_STEPS || !this.scheduler.step())
              throw new Error(`It never came to: ${what}\n${this.scheduler.story.slice(-40).join('\n')}`);
          done();
        } catch (error) {
          failed(error);
        }
      }),
    );
  }

  async closed(): Promise<SimWorkflowHandle> {
    await this.until(() => this.run.status !== 'RUNNING', 'closed');
    return this.run;
  }

  async pass(ms: number): Promise<void> {
    let over = false;
    this.scheduler.post(undefined, 'time passes', () => (over = true), ms);
    await this.until(() => over);
  }

  failing(code: ErrorCode): never {
    throw toFailure(new DwcpError(code, `made to: ${code}`));
  }

  /** For a behaviour: goes on after that time, in the process that asks. */
  wait(host: string, ms: number): Promise<void> {
    return new Promise((done) => this.scheduler.post(this.hosts.get(host), 'wait', done, ms));
  }

  #stub(
    host: Host,
    activity: string,
    result: (input: Readonly<Record<string, unknown>>) => unknown,
  ): (input: Readonly<Record<string, unknown>>) => Promise<unknown> {
    return async (input) => {
      const { activityId, attempt } = activityInfo();
      this.ran.push(`${host.name} ${activity} ${activityId} #${attempt}`);
      this.#running += 1;
      this.most = Math.max(this.most, this.#running);
      const signal = cancellationSignal();
      heartbeat({ doing: activity });
      const tick = (): void =>
        void this.scheduler.post(
          host,
          'tick',
          AsyncResource.bind(() => {
            if (ended) return;
            heartbeat({ doing: activity });
            tick();
          }),
          HEARTBEAT_TICK_MS,
        );
      let ended = false;
      tick();
      try {
        const stopped = new Promise<never>((_, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason)),
        );
        stopped.catch(() => undefined);
        await new Promise<void>((done) => this.scheduler.post(host, activity, done, 20));
        return await Promise.race([
          stopped,
          Promise.resolve(this.behaviours.get(activity)?.(attempt, input)).then((given) => given ?? result(input)),
        ]);
      } finally {
        ended = true;
        this.#running -= 1;
      }
    };
  }

  #stubs(): Record<string, (input: Readonly<Record<string, unknown>>) => unknown> {
    const image = { imageId: 'disk', kind: 'disk', sizeBytes: 1_048_576, path: '/disk' };
    const nothing = (): undefined => undefined;
    return {
      prepareSource: () => ({
        images: [image],
        fence: 1,
        generation: 0,
        alreadyMoved: false,
        ...(this.guest && {
          guest: {
            command: ['qemu'],
            qemuVersion: '10.0.0',
            hardware: NO_HARDWARE,
            machine: 'q35',
            needsFiles: [],
            ramBlocks: [],
            sharedFiles: [],
            diskPaths: {},
          },
        }),
      }),
      prepareDestination: () => ({
        address: '10.0.0.2',
        port: 9876,
        grant: { purpose: 'session', subject: 'm1', holder: 'a', expiresAtMs: 1, token: 'x' },
      }),
      establishStreams: () => ({ streams: 4, fromPool: 0 }),
      detectTier: () => ({ rttMs: 20, bandwidthBytesPerSecond: 1e8 }),
      checkBaseline: () => ({ imageId: 'disk', state: 'empty', heldBytes: 0 }),
      computePlan: () => ({
        images: [],
        expectedLinkBytes: 1,
        expectedSeconds: 1,
        expectedDowntimeSeconds: 0,
        standardSeconds: 10,
        expectedSpeedup: 10,
      }),
      transferImage: () => RESULT,
      standardTransferImage: () => RESULT,
      switchover: () => ({ generation: 1 }),
      guestRounds: () => ({ rounds: 2, reason: '' }),
      guestSwitchover: () => ({ guest: { rounds: 2, reason: '', responds: true, throttle: 0 }, images: [] }),
      handOver: nothing,
      handedOverWord: nothing,
      handedOverRoots: nothing,
      releaseGuest: nothing,
      takeOver: () => ({ generation: 1 }),
      release: nothing,
      rollBackSource: nothing,
      abandonDestination: nothing,
      closeSource: nothing,
      setBandwidthLimit: nothing,
      keepBaselineCopies: () => [],
    };
  }
}
