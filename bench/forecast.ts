/**
 * `npm run bench -- forecast`: what `dwcp plan` says of running guests, and what their moves then take: guests that write little, much
 * and to their disk, links from 20 Mbit/s to 1 Gbit/s, each there and back; 20 moves. Prints both figures of each with the error, and
 * how many are within 20 %.
 *
 *   --loopback: without namespaces and root, the link being a limit of its rate
 *   --only TEXT: guests and links whose name contains it   --rounds N (1): each so many times there and back
 */
import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type LinuxGuest,
  type LinuxGuestOptions,
  linuxGuestCommand,
  makeLinuxGuest,
  serialLine,
  ticksOf,
} from '../src/cli/demo/linux-guest';
import { planText } from '../src/cli/plan-text';
import { signRequest } from '../src/control/issuer';
import { CONTROL_QUEUE, OWN_WORKFLOWS, planWorkflowId } from '../src/model/names';
import type { PlanResult } from '../src/model/plan';
import { VmRegistry } from '../src/store/vm-registry';
import { TrustFolder } from '../src/trust/trust-folder';
import { type Row, report, say } from './report';
import { cpuSeconds, Stage, type StageHost } from './stage';
import { type LinkSetting, WanLink, wanRefusal } from './wan-link';

const DISK_MIB = 384;
const GUEST: LinuxGuestOptions = {
  memoryMiB: 384,
  diskMiB: DISK_MIB,
  filesMiB: 200,
  randomMiB: 48,
  dirtyKiBPerTick: 128,
  diskKiBPerSecond: 0,
  readOnlyDisk: true,
};

const GUESTS: Readonly<Record<string, LinuxGuestOptions>> = {
  'writes little': { ...GUEST, dirtyKiBPerTick: 8 },
  'writes some': GUEST,
  'writes much': { ...GUEST, dirtyKiBPerTick: 1024 },
  'mostly zero': { ...GUEST, memoryMiB: 1024, randomMiB: 16 },
  'with its disk': { ...GUEST, diskKiBPerSecond: 128, readOnlyDisk: false },
};

const LINKS: Readonly<Record<string, LinkSetting>> = {
  '100 Mbit/s, 50 ms': { rate: '100mbit', rateBitsPerSecond: 100e6, rtt: '50ms', loss: '0.01%', cc: 'cubic' },
  '20 Mbit/s, 30 ms': { rate: '20mbit', rateBitsPerSecond: 20e6, rtt: '30ms', loss: '0%', cc: 'cubic' },
};

const BOOT_MS = 240_000;
const STAY_MS = 20_000;
const WITHIN = 0.2;

interface Compared {
  readonly name: string;
  readonly said: number;
  readonly took: number;
}

export async function benchForecast(json: boolean, args: readonly string[]): Promise<void> {
  const loopback = args.includes('--loopback');
  const refusal = loopback ? undefined : wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const only = args.includes('--only') ? (args[args.indexOf('--only') + 1] ?? '') : '';
  const rounds = args.includes('--rounds') ? Number(args[args.indexOf('--rounds') + 1]) : 1;
  const bench = new ForecastBench();
  for (const [linkName, setting] of Object.entries(LINKS)) {
    const guests = Object.entries(GUESTS).filter(([name]) => `${name}, ${linkName}`.includes(only));
    if (guests.length === 0) continue;
    const link = new WanLink('forecast', setting);
    if (!loopback) link.up();
    const hosts = loopback ? {} : { serverAddress: link.management, a: link.a, b: link.b };
    const stage = new Stage({ name: 'forecast', ...hosts });
    try {
      await stage.start();
      const made = await makeLinuxGuest(join(stage.folder, 'guest'), GUEST, stage.children, say);
      bench.limitBytesPerSecond = loopback ? setting.rateBitsPerSecond / 8 : 0;
      for (const [name, options] of guests) await bench.moves(stage, made, `${name}, ${linkName}`, options, rounds);
    } finally {
      await stage.stop();
      if (!loopback) link.down();
    }
  }
  bench.sum();
  report('forecast', bench.rows, json, { guests: GUESTS, links: LINKS, stayMs: STAY_MS, rounds });
}

class ForecastBench {
  readonly rows: Row[] = [];
  /** Of the migrations; 0 is none. */
  limitBytesPerSecond = 0;
  readonly #times: Compared[] = [];
  readonly #pauses: Compared[] = [];
  #turn = 0;

  async moves(
    stage: Stage,
    guest: LinuxGuest,
    name: string,
    options: LinuxGuestOptions,
    rounds: number,
  ): Promise<void> {
    const vmId = `guest-${(this.#turn += 1)}`;
    const { a, b } = stage;
    const folder = join(stage.folder, vmId);
    mkdirSync(folder);
    const disk = options.readOnlyDisk ? guest.disk : join(folder, 'disk.img');
    if (!options.readOnlyDisk) copyFileSync(guest.disk, disk);
    const command = linuxGuestCommand({ ...guest, disk }, options, join(folder, 'serial'));
    await dwcp(stage, a, ['vm', 'define', vmId, '--data-dir', a.dataDir, '--', ...command]);
    await dwcp(stage, a, ['vm', 'start', vmId, '--data-dir', a.dataDir]);
    await serialLine(join(folder, 'serial'), /^tick 5$/, BOOT_MS);
    for (let round = 1; round <= rounds; round += 1) {
      await this.#move(stage, vmId, `${name}: there${round === 1 ? '' : `, ${round}`}`, a, b);
      await this.#move(stage, vmId, `${name}: back${round === 1 ? '' : `, ${round}`}`, b, a);
    }
    await dwcp(stage, a, ['vm', 'stop', vmId, '--now', '--data-dir', a.dataDir]);
  }

  async #move(stage: Stage, vmId: string, name: string, from: StageHost, to: StageHost): Promise<void> {
    const options = { bandwidthLimit: this.limitBytesPerSecond };
    const planned = await planOf(stage, vmId, options, from, to);
    say(`${name}\n${planText(planned)}`);
    const agents = [from, to].map(({ hostId }) => stage.agents.get(hostId));
    const before = agents.map(cpuSeconds);
    const result = await stage.migrate(vmId, from, to, options);
    const spent = agents.map((agent, index) => cpuSeconds(agent) - (before[index] ?? 0));
    const { forecast } = planned.plan;
    const downtimeMs = result.guest?.downtimeMs ?? NaN;
    const [said, pause] = [forecast?.seconds ?? planned.plan.expectedSeconds, forecast?.downtimeMs ?? 0];
    this.#times.push({ name, said, took: result.totalSeconds });
    this.#pauses.push({ name, said: pause, took: downtimeMs });
    const [first, last] = [ticksOf(serialOn(to, vmId)).last, 5];
    await serialLine(serialOn(to, vmId), new RegExp(`^tick ${first + last}$`), STAY_MS * 3).catch(() => undefined);
    const { bad } = ticksOf(serialOn(to, vmId));
    const linkBytes = result.images.reduce((sum, image) => sum + image.linkBytes, 0);
    const memory = result.images.find(({ imageId }) => imageId === 'memory');
    this.rows.push({
      name,
      seconds: result.totalSeconds,
      downtimeMs,
      linkBytes,
      rounds: result.guest?.rounds ?? 0,
      verified: bad.length === 0,
      note:
        `said ${said.toFixed(1)} s (${percent(said, result.totalSeconds)}), ${pause} ms (${percent(pause, downtimeMs)}), ` +
        `${((forecast?.linkBytes ?? 0) / 1e6).toFixed(1)} MB, ${forecast?.rounds ?? 0} rounds`,
    });
    say(
      `  took ${result.totalSeconds.toFixed(1)} s (${percent(said, result.totalSeconds)}), still for ` +
        `${downtimeMs.toFixed(0)} ms (${percent(pause, downtimeMs)}), ${(linkBytes / 1e6).toFixed(1)} MB, ` +
        `${result.guest?.rounds ?? 0} rounds, processors ${spent.map((seconds) => `${seconds.toFixed(1)} s`).join(' and ')}, images ${result.images
          .map(
            ({ imageId, seconds, linkBytes: bytes }) =>
              `${imageId} ${seconds.toFixed(1)} s ${(bytes / 1e6).toFixed(1)} MB`,
          )
          .join(', ')}, level ${memory?.level ?? 0}; ${result.guest?.reason ?? ''}`,
    );
    await new Promise((resolve) => setTimeout(resolve, STAY_MS));
  }

  sum(): void {
    for (const [what, all] of [
      ['time', this.#times],
      ['downtime', this.#pauses],
    ] as const) {
      const within = all.filter(({ said, took }) => Math.abs(said / took - 1) <= WITHIN).length;
      say(`${what}: ${within} of ${all.length} within ${100 * WITHIN} %`);
    }
  }
}

function percent(said: number, took: number): string {
  const off = 100 * (said / took - 1);
  return `${off >= 0 ? '+' : ''}${off.toFixed(0)} %`;
}

function serialOn(host: StageHost, vmId: string): string {
  return join(new VmRegistry(host.dataDir).runFolder(vmId), 'serial');
}

async function planOf(
  stage: Stage,
  vmId: string,
  options: { readonly bandwidthLimit: number },
  from: StageHost,
  to: StageHost,
): Promise<PlanResult> {
  const identity = { vmId, sourceHost: from.hostId, destinationHost: to.hostId, migrationId: randomUUID() };
  const authorisation = signRequest(TrustFolder.find(join(stage.folder, 'trust')), { mode: 'plan', ...identity });
  return (await stage.client.workflow.execute(OWN_WORKFLOWS.planMigration, {
    workflowId: planWorkflowId(vmId, randomUUID()),
    taskQueue: CONTROL_QUEUE,
    args: [{ schemaVersion: 1, ...identity, options, ...(authorisation !== undefined && { authorisation }) }],
  })) as PlanResult;
}

async function dwcp(stage: Stage, host: StageHost, args: readonly string[]): Promise<void> {
  const child = stage.children.startDwcp(args[1] ?? 'dwcp', args, {}, host.prefix);
  if ((await child.ended) !== 0) throw new Error(`dwcp ${args.join(' ')} failed; see ${child.logFile}`);
}
