/**
 * What inflicts a fault of the crash matrix on a scene: kills, holds, cuts, full disks, crashes of a whole host, and what
 * operators do at a bad moment. Each returns when the fault is over and all that was taken away is back.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { Fault, GuestFault, VmFault } from './cells';
import { CrashDisk, fillDisk } from './host-disks';
import type { MovingVm, Side } from './moving-vm';
import { Scene } from './scene';
import { after, until } from './waiting';

/** Within maxDowntimeMs of the matrix's migrations, and longer than a heartbeat's silence may last. */
const HELD_MS = 4_000;
const HELD_LONG_MS = 12_000;
const FULL_MS = 2_500;
const RUNS_ON_WITHIN_MS = 30_000;

const OF_ANY_VM: Readonly<Record<VmFault, (vm: MovingVm) => Promise<void>>> = {
  'source agent': ({ lab }) => lab.killAndRestart('source agent'),
  'destination agent': ({ lab }) => lab.killAndRestart('destination agent'),
  'control worker': ({ lab }) => lab.killAndRestart('control worker'),
  'Temporal server': ({ lab }) => lab.killAndRestart('Temporal server'),
  'link 1 s': (vm) => cutFor(vm, 1_000),
  'link 30 s': (vm) => cutFor(vm, 30_000),
  'link for good': ({ relay }) => relay.close(),
  cancel: (vm) => vm.cancel(),
  'full disk': ({ lab }) => fullFor(lab.b.dataDir),
  'source disk full': ({ lab }) => fullFor(lab.a.dataDir),
  'workflow reset': (vm) => vm.resetWorkflow(),
  'workflow terminate': (vm) => vm.terminateWorkflow(),
  'second migrate': async (vm) => {
    await vm.terminateWorkflow();
    await vm.migrateAtOnce();
  },
  'cancel then migrate': async (vm) => {
    await vm.cancel();
    await vm.migrateAtOnce();
  },
  'source agent held': (vm) => holdAgent(vm, 'source', HELD_MS),
  'destination agent held': (vm) => holdAgent(vm, 'destination', HELD_MS),
  'source agent held long': (vm) => holdAgent(vm, 'source', HELD_LONG_MS),
  'destination agent held long': (vm) => holdAgent(vm, 'destination', HELD_LONG_MS),
  'source host crash': (vm) => crashHost(vm, 'source'),
  'destination host crash': (vm) => crashHost(vm, 'destination'),
};

const OF_A_GUEST: Readonly<Record<GuestFault, (scene: Scene) => Promise<void>>> = {
  'source QEMU': (scene) => killGuest(scene, 'source'),
  'destination QEMU': (scene) => killGuest(scene, 'destination'),
  'source QEMU held': (scene) => holdGuest(scene, 'source', HELD_MS),
  'destination QEMU held': (scene) => holdGuest(scene, 'destination', HELD_MS),
  'source QEMU held long': (scene) => holdGuest(scene, 'source', HELD_LONG_MS),
  'destination QEMU held long': (scene) => holdGuest(scene, 'destination', HELD_LONG_MS),
  'operator stop': async ({ watch }) => {
    await watch
      .monitor('source')
      .execute('stop')
      .catch(() => undefined); // At its end the source's QEMU is gone.
  },
  'agent back without Temporal': agentBackAlone,
};

export function inflict(fault: Fault, vm: MovingVm): Promise<void> {
  vm.note(`fault: ${fault}`);
  if (!isOfGuest(fault)) return OF_ANY_VM[fault](vm);
  if (vm instanceof Scene) return OF_A_GUEST[fault](vm);
  throw new Error(`${fault} needs a guest that runs`);
}

function isOfGuest(fault: Fault): fault is GuestFault {
  return fault in OF_A_GUEST;
}

async function cutFor({ relay }: MovingVm, ms: number): Promise<void> {
  await relay.close();
  await after(ms);
  await relay.listen();
}

async function fullFor(folder: string): Promise<void> {
  const makeRoom = fillDisk(folder);
  await after(FULL_MS);
  makeRoom();
}

function killGuest({ watch }: Scene, side: Side): Promise<void> {
  watch.signal(side, 'SIGKILL');
  return Promise.resolve();
}

async function holdGuest({ watch }: Scene, side: Side, ms: number): Promise<void> {
  watch.signal(side, 'SIGSTOP');
  await after(ms);
  watch.signal(side, 'SIGCONT');
}

async function holdAgent({ lab }: MovingVm, side: Side, ms: number): Promise<void> {
  const agent = lab.processOf(`${side} agent`)?.process;
  agent?.kill('SIGSTOP');
  await after(ms);
  agent?.kill('SIGCONT');
}

/** Power is cut: agent and QEMUs end at once, what was not synced is gone; a moment later the host is up again. */
export async function crashHost({ lab, disks }: MovingVm, side: Side): Promise<void> {
  const disk = disks[side];
  if (!(disk instanceof CrashDisk)) throw new Error(`the ${side} has no disk to crash on`);
  const agent = lab.processOf(`${side} agent`);
  const pids = qemusNaming(disk.folder);
  await disk.crash(() => {
    agent?.process.kill('SIGKILL');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
  });
  await agent?.ended;
  await lab.startAgain(`${side} agent`);
}

function qemusNaming(folder: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return (command.split('\0')[0] ?? '').includes('qemu') && command.includes(folder);
      } catch {
        return false; // It has ended meanwhile.
      }
    });
}

/** The source's agent comes back with no Temporal server to ask: where the guest is still its own, it runs within seconds. */
async function agentBackAlone(scene: Scene): Promise<void> {
  const { lab, watch } = scene;
  await Promise.all([lab.kill('source agent'), lab.kill('Temporal server')]);
  const owns = scene.statesOf('source').at(-1) === 'claimed';
  lab.startAgent(lab.a);
  if (owns)
    await until(RUNS_ON_WITHIN_MS, 'without Temporal the guest runs on at the source, which owns it', () =>
      watch.running.includes('source'),
    );
  await lab.startServer();
}
