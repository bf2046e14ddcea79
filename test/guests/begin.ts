/**
 * A guest of the table brought to where its move begins: defined and started by DWCP, started by hand and adopted, or defined and left
 * stopped; and what happens to it before.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { GuestAt, ticksOn } from './guest-at';
import type { GuestShape, Said, ShapePlaces } from './shape';
import type { TwoHosts } from './two-hosts';
import { Watch } from './watch';

const BOOT_MS = 60_000;
/** An unplugged device goes a moment later. */
const SETTLES_MS = 500;
const SAID_MS = 5_000;

/** As `dwcp` prints it. */
export interface Line {
  readonly code: string;
  readonly text: string;
}

export interface Begun {
  readonly monitor: string;
  /** Undefined where it does not run. */
  readonly guest: GuestAt | undefined;
  /** How far it has come. */
  readonly count: number;
  readonly process?: ChildProcess | undefined;
  /** The line with which `define`, `start` or `adopt` refuses it. */
  readonly refused?: Line;
}

export async function begin(hosts: TwoHosts, shape: GuestShape, at: ShapePlaces): Promise<Begun> {
  const { a } = hosts.stage;
  const own = runPlaces(new VmRegistry(a.dataDir).runFolder(at.vmId)).monitorPath;
  const serial = join(at.folder, 'serial');
  if (shape.begun === 'adopted') {
    const monitor = join(at.folder, 'watch.sock');
    const process = byHand(hosts, shape, at, monitor);
    const begun = await booted(shape, at, { monitor, serial, process });
    await shape.here?.(hosts.source, at);
    const qmp = resolve(at.folder, shape.monitor?.(at) ?? 'qmp.sock');
    const adopted = await hosts.dwcp(a, 'vm', 'adopt', at.vmId, '--qmp', qmp);
    return adopted.code === 0 ? begun : { ...begun, refused: lineOf(adopted.text) };
  }
  const stopped: Begun = { monitor: own, guest: undefined, count: 0 };
  const defined = await hosts.dwcp(a, 'vm', 'define', at.vmId, '--', ...shape.command(at));
  if (defined.code !== 0) return { ...stopped, refused: lineOf(defined.text) };
  if (shape.begun !== 'stopped') {
    const started = await hosts.dwcp(a, 'vm', 'start', at.vmId);
    if (started.code !== 0) return { ...stopped, refused: lineOf(started.text) };
  }
  const begun = shape.begun === 'stopped' ? stopped : await booted(shape, at, { monitor: own, serial });
  await shape.here?.(hosts.source, at);
  return begun;
}

function byHand(hosts: TwoHosts, shape: GuestShape, at: ShapePlaces, monitor: string): ChildProcess {
  const qmp = shape.monitor?.(at) ?? join(at.folder, 'qmp.sock');
  const monitors = [qmp, monitor].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]);
  const [program = '', ...args] = [
    ...hosts.source.prefix,
    ...['sh', '-c', 'cd "$0" && exec "$@"', at.folder],
    ...(shape.through?.(at) ?? []),
    ...shape.command(at),
    ...monitors,
  ];
  return spawn(program, args, { stdio: 'ignore' });
}

async function booted(
  shape: GuestShape,
  at: ShapePlaces,
  { monitor, serial, process }: { readonly monitor: string; readonly serial: string; readonly process?: ChildProcess },
): Promise<Begun> {
  const answers = (): boolean => existsSync(monitor);
  if (!(await until(answers, { everyMs: 30, withinMs: BOOT_MS }))) throw new Error('its QEMU does not start');
  const guest = new GuestAt(monitor, at.common);
  const watch = await Watch.at(monitor);
  try {
    for (const [command, parameters] of shape.said?.(at) ?? []) await saySoon(watch, command, parameters);
  } finally {
    watch.close();
  }
  if (shape.said) await until(() => false, { everyMs: SETTLES_MS, withinMs: SETTLES_MS });
  const count = await isUp(shape, guest, serial);
  if (shape.stopsFirst) await guest.ask((qmp) => qmp.execute('stop'));
  return { monitor, guest, count, process };
}

/** What is said behind another command may be too soon for a moment. */
async function saySoon(watch: Watch, ...[command, parameters]: Said[number]): Promise<void> {
  let refused: unknown;
  const said = (): Promise<boolean> =>
    watch.say(command, parameters).then(
      () => true,
      (error: unknown) => {
        refused = error;
        return false;
      },
    );
  if (!(await until(said, { everyMs: 100, withinMs: SAID_MS }))) throw refused;
}

async function isUp(shape: GuestShape, guest: GuestAt, serial: string): Promise<number> {
  if (shape.guest === 'linux') return ticksOn(serial, 0);
  if (shape.guest !== 'keys') return guest.countsOn(1);
  const said = (): boolean => existsSync(serial) && readFileSync(serial, 'utf8').includes('!');
  if (!(await until(said, { everyMs: 50, withinMs: BOOT_MS }))) throw new Error('it does not boot');
  return 0;
}

/** `dwcp: CODE (side): what. mend.` */
function lineOf(text: string): Line {
  const last = text.split('\n').at(-1) ?? '';
  const [, code = '?'] = /^dwcp: ([A-Z_]+)/.exec(last) ?? [];
  return { code, text };
}
