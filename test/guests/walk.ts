/**
 * Plays an entry of the table of guests, there and back, and says what was not as it has to be. It knows nothing of jest: `npm test` walks
 * the quickest dozen with it, `npm run bench -- guests` all of them.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { StageHost } from '../../bench/stage';
import { hardwareDifference } from '../../src/hypervisor/qemu/hardware-difference';
import { killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { messageOf } from '../../src/model/errors';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { type Begun, begin } from './begin';
import { type KeptDisk, keepDisks, otherDisk } from './disks';
import { type AtWork, GuestAt, type Machine, ticksOn } from './guest-at';
import { leftovers } from './leftovers';
import { type Ending, Move } from './move';
import type { GuestShape, Refusal, ShapePlaces } from './shape';
import type { TwoHosts } from './two-hosts';
import { Watch } from './watch';

const SENT_MS = 60_000;
/** A header, a journal: no content of an image. */
const NO_CONTENT_BYTES = 65_536;

export interface Played {
  readonly shape: GuestShape;
  readonly vmId: string;
  readonly outcome: string;
  /** What was not as it has to be: none. */
  readonly faults: readonly string[];
  /** From the request to its end, of the way there. */
  readonly seconds: number;
  readonly stops: number;
  readonly sentBytes: number;
  /** The line of a refusal. */
  readonly said: string;
}

interface Before {
  readonly machine: Machine | undefined;
  readonly atWork: AtWork | undefined;
  readonly disks: readonly KeptDisk[];
  readonly count: number;
}

export async function play(hosts: TwoHosts, shape: GuestShape, say: (line: string) => void): Promise<Played> {
  const turn = new Turn(hosts, shape, await hosts.places(shape, say));
  try {
    return await turn.play();
  } catch (error) {
    return turn.played('FAILED', [messageOf(error)]);
  } finally {
    turn.end();
  }
}

class Turn {
  readonly #hosts: TwoHosts;
  readonly #shape: GuestShape;
  readonly #at: ShapePlaces;
  readonly #faults: string[] = [];
  #begun: Begun | undefined;
  #ending: Ending | undefined;
  #stops = 0;
  #said = '';

  constructor(hosts: TwoHosts, shape: GuestShape, at: ShapePlaces) {
    this.#hosts = hosts;
    this.#shape = shape;
    this.#at = at;
  }

  async play(): Promise<Played> {
    const [shape, at, { stage, source, destination }] = [this.#shape, this.#at, this.#hosts];
    shape.make?.(at, source);
    const askedAt = performance.now();
    const begun = await begin(this.#hosts, shape, at);
    this.#begun = begun;
    if (begun.refused) {
      this.#refusedAs(begun.refused.code, begun.refused.text, shape.expected.refused);
      this.#ending = { parked: false, sentBytes: 0, seconds: (performance.now() - askedAt) / 1000 };
      return this.played('refused by the command', this.#faults);
    }
    await shape.there?.(destination, at);
    const before = await this.#before(stage.a, begun);
    this.#ending = await this.#move([stage.a, stage.b], begun);
    if (!this.#ending.result) return this.#ended(this.#ending, before);
    if (!shape.expected.moved) this.#faults.push('it was moved');
    const count = await this.#arrived([stage.a, stage.b], before);
    const there = await this.#beforeBack(stage.b, count);
    const back = await new Move(this.#hosts, at.vmId, [stage.b, stage.a], {}).ended;
    if (back.error) this.#faults.push(`it does not come back: ${back.error.code}: ${back.error.message}`);
    else await this.#arrived([stage.b, stage.a], there);
    return this.played(back.error ? 'moved' : 'moved, and back', this.#faults);
  }

  played(outcome: string, faults: readonly string[]): Played {
    const { seconds = 0, sentBytes = 0 } = this.#ending ?? {};
    const all = [...this.#faults.filter((fault) => !faults.includes(fault)), ...faults];
    const said = this.#said.replaceAll(this.#at.folder, '~').replaceAll(this.#at.common, '~both');
    return {
      shape: this.#shape,
      vmId: this.#at.vmId,
      outcome,
      faults: all,
      seconds,
      stops: this.#stops,
      sentBytes,
      said,
    };
  }

  end(): void {
    const { a, b } = this.#hosts.stage;
    const runs = [a, b].map(({ dataDir }) => join(new VmRegistry(dataDir).runFolder(this.#at.vmId), '/'));
    killGuestsNaming([...runs, join(this.#at.folder, '/')]);
    this.#begun?.process?.kill('SIGKILL');
    this.#hosts.restore();
    for (const folder of [this.#at.folder, this.#at.common]) rmSync(folder, { recursive: true, force: true });
  }

  async #before(host: StageHost, { guest, count }: Begun): Promise<Before> {
    const record = await new VmRegistry(host.dataDir).get(this.#at.vmId);
    const running = await guest?.ask((qmp) => qmp.execute('query-block'));
    const paths = running
      ? running.flatMap(({ inserted }) => (inserted && !inserted.ro ? [inserted.image.filename] : []))
      : record.images.map(({ path }) => path);
    const files = paths.map((path, index) => (path.startsWith('/') ? path : (record.images[index]?.path ?? path)));
    const writes = this.#shape.guest === 'linux';
    return {
      machine: await guest?.machine(),
      atWork: await guest?.atWork(),
      disks: writes ? [] : keepDisks(files, (path) => this.#hosts.seen(host, path), join(this.#at.common, 'kept')),
      count,
    };
  }

  /** What runs there is looked at on the monitor that DWCP has given it. */
  async #beforeBack(host: StageHost, count: number): Promise<Before> {
    const monitor = runPlaces(new VmRegistry(host.dataDir).runFolder(this.#at.vmId)).monitorPath;
    const guest = this.#begun?.guest ? new GuestAt(monitor, this.#at.common) : undefined;
    return this.#before(host, { monitor, guest, count });
  }

  async #move(way: readonly [StageHost, StageHost], { guest, monitor }: Begun): Promise<Ending> {
    const [shape, at, { source, destination, stage }] = [this.#shape, this.#at, this.#hosts];
    const watch = guest && (await Watch.at(monitor));
    const move = new Move(this.#hosts, at.vmId, way, shape.options ?? {});
    const diskThere = new VmRegistry(stage.b.dataDir).imagePath(undefined, at.vmId, 'vda');
    const untilSent = async (): Promise<void> =>
      void (await until(() => move.sentBytes > 0, { everyMs: 50, withinMs: SENT_MS }));
    const onItsWay = { say: watch ? watch.say.bind(watch) : noMonitor, untilSent, source, destination, diskThere };
    const happened = shape.meanwhile?.(onItsWay, at).catch((error: unknown) => {
      this.#faults.push(`what happens meanwhile: ${messageOf(error)}`);
    });
    const ending = await move.ended;
    await happened;
    this.#stops = watch?.stops ?? 0;
    watch?.close();
    return ending;
  }

  async #ended({ error, parked, sentBytes }: Ending, before: Before): Promise<Played> {
    const { expected, left } = this.#shape;
    const { a, b } = this.#hosts.stage;
    const text = `${error?.message ?? ''}. ${error?.hint ?? ''}`;
    this.#refusedAs(error?.code ?? '?', text, expected.refused ?? expected.ends);
    if (!expected.ends) {
      if (parked) this.#faults.push('it waits for an operator');
      if (sentBytes > 0) this.#faults.push(`${sentBytes} bytes had been sent`);
      const held = this.#hosts.heldBytes(b, this.#at.vmId);
      if (held > NO_CONTENT_BYTES) this.#faults.push(`${held} bytes of it are at the destination`);
      if (this.#stops > 0) this.#faults.push(`it was paused ${this.#stops} times`);
    }
    const guest = this.#begun?.guest;
    const runs = guest !== undefined && left !== 'not running';
    if (guest && runs) {
      await this.#goesOn(guest, before.count);
      const atWork = await guest.atWork();
      // What an operator has begun meanwhile goes on.
      const looked = this.#shape.meanwhile
        ? (['ours', 'migration'] as const)
        : (Object.keys(atWork) as (keyof AtWork)[]);
      for (const what of looked)
        if (atWork[what] !== before.atWork?.[what])
          this.#faults.push(`its QEMU’s ${what} are ${atWork[what]}, and were ${before.atWork?.[what] ?? 'none'}`);
    }
    const presence = (await new VmRegistry(a.dataDir).get(this.#at.vmId)).presence;
    if (presence !== 'here') this.#faults.push(`it is ${presence} at the source`);
    this.#faults.push(...(await leftovers(this.#hosts, this.#at.vmId, guest ? a : undefined)));
    return this.played(expected.ends ? 'ended' : 'refused', this.#faults);
  }

  async #arrived([from, to]: readonly [StageHost, StageHost], before: Before): Promise<number> {
    const [shape, { vmId, common }] = [this.#shape, this.#at];
    const [left, record] = await Promise.all([from, to].map((host) => new VmRegistry(host.dataDir).get(vmId)));
    if (!left || !record) throw new Error('its records are not there');
    if (left.presence !== 'away' || record.presence !== 'here')
      this.#faults.push(`it is ${left.presence} and ${record.presence}`);
    const seen = (path: string): string => this.#hosts.seen(to, path);
    const other = otherDisk(before.disks, left, record, seen);
    if (other !== undefined) this.#faults.push(other);
    const wrong = shape.arrived?.(record, this.#at);
    if (wrong !== undefined) this.#faults.push(wrong);
    const { folder, monitorPath } = runPlaces(new VmRegistry(to.dataDir).runFolder(vmId));
    let count = before.count;
    if (this.#begun?.guest) {
      const guest = new GuestAt(monitorPath, common);
      const machine = await guest.machine();
      if (before.machine) this.#sameMachine(before.machine, machine);
      count = shape.guest === 'linux' ? await ticksOn(join(folder, 'serial'), 0) : await this.#goesOn(guest, count);
    } else if (shape.begun === 'stopped') {
      const started = await this.#hosts.dwcp(to, 'vm', 'start', vmId);
      if (started.code !== 0) this.#faults.push(`it does not start: ${started.text}`);
      else await new GuestAt(monitorPath, common).countsOn(0);
      await this.#hosts.dwcp(to, 'vm', 'stop', vmId, '--now');
    }
    this.#faults.push(...(await leftovers(this.#hosts, vmId, this.#begun?.guest ? to : undefined)));
    return count;
  }

  #sameMachine(before: Machine, after: Machine): void {
    const difference = hardwareDifference(before.hardware, after.hardware);
    if (difference !== undefined) this.#faults.push(`its machine is another: ${difference}`);
    const [gone, come] = [without(before.tree, after.tree), without(after.tree, before.tree)];
    if (gone !== undefined) this.#faults.push(`its QOM tree has lost ${gone}`);
    if (come !== undefined) this.#faults.push(`its QOM tree has got ${come}`);
  }

  async #goesOn(guest: GuestAt, count: number): Promise<number> {
    if (this.#shape.guest === 'linux') return ticksOn(join(this.#at.folder, 'serial'), count);
    if (this.#shape.guest !== 'keys') return guest.countsOn(count);
    const status = await guest.status();
    if (status !== 'running') this.#faults.push(`its guest is ${status}`);
    return 0;
  }

  #refusedAs(code: string, text: string, expected: Refusal | undefined): void {
    this.#said = text;
    if (!expected) this.#faults.push(`it was not moved: ${code}: ${text}`);
    else if (!(expected.codes as readonly string[]).includes(code)) this.#faults.push(`its code is ${code}: ${text}`);
    else if (!expected.says.test(text)) this.#faults.push(`the line does not say ${String(expected.says)}: ${text}`);
    if (text.includes('\n')) this.#faults.push('its line is more than one');
  }
}

function without(some: readonly string[], others: readonly string[]): string | undefined {
  const left = [...others];
  return some.find((one) => {
    const at = left.indexOf(one);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}

function noMonitor(): Promise<never> {
  return Promise.reject(new Error('it has no monitor'));
}
