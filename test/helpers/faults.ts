/**
 * What inflicts a fault of the crash matrix on a scene: kills, holds, cuts, full disks, crashes of a whole host, and what
 * operators do at a bad moment. Each returns when the fault is over and all that was taken away is back.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { Fault } from './crash-matrix';
import type { Side } from './guest-watch';
import { CrashDisk, fillDisk } from './host-disks';
import type { Scene } from './scene';
import { after, until } from './waiting';

/** Within maxDowntimeMs of the matrix's migrations, and longer than a heartbeat's silence may last. */
const HELD_MS = 4_000;
const HELD_LONG_MS = 12_000;
const FULL_MS = 2_500;
const RUNS_ON_WITHIN_MS = 10_000;

export const INFLICT: Readonly<Record<Fault, (scene: Scene) => Promise<void>>> = {
  'source agent': ({ lab }) => lab.killAndRestart('source agent'),
  'destination agent': ({ lab }) => lab.killAndRestart('destination agent'),
  'control worker': ({ lab }) => lab.killAndRestart('control worker'),
  'Temporal server': ({ lab }) => lab.killAndRestart('Temporal server'),
  'source QEMU': (scene) => killGuest(scene, 'source'),
  'destination QEMU': (scene) => killGuest(scene, 'destination'),
  'link 1 s': (scene) => cutFor(scene, 1_000),
  'link 30 s': (scene) => cutFor(scene, 30_000),
  'link for good': ({ relay }) => relay.close(),
  cancel: (scene) => scene.cancel(),
  'full disk': ({ lab }) => fullFor(lab.b.dataDir),
  'source disk full': ({ lab }) => fullFor(lab.a.dataDir),
  'workflow reset': (scene) => scene.resetWorkflow(),
  'workflow terminate': (scene) => scene.terminateWorkflow(),
  'second migrate': async (scene) => {
    await scene.terminateWorkflow();
    await scene.migrateAtOnce();
  },
  'cancel then migrate': async (scene) => {
    await scene.cancel();
    await scene.migrateAtOnce();
  },
  'operator stop': async ({ watch }) => {
    await watch.monitor('source').execute('stop').catch(() => undefined); // At its end the source's QEMU is gone.
  },
  'source QEMU held': (scene) => holdGuest(scene, 'source', HELD_MS),
  'destination QEMU held': (scene) => holdGuest(scene, 'destination', HELD_MS),
  'source agent held': (scene) => holdAgent(scene, 'source', HELD_MS),
  'destination agent held': (scene) => holdAgent(scene, 'destination', HELD_MS),
  'source QEMU held long': (scene) => holdGuest(scene, 'source', HELD_LONG_MS),
  'destination QEMU held long': (scene) => holdGuest(scene, 'destination', HELD_LONG_MS),
  'source agent held long': (scene) => holdAgent(scene, 'source', HELD_LONG_MS),
  'destination agent held long': (scene) => holdAgent(scene, 'destination', HELD_LONG_MS),
  'source host crash': (scene) => crashHost(scene, 'source'),
  'destination host crash': (scene) => crashHost(scene, 'destination'),
  'agent back without Temporal': agentBackAlone,
};

async function cutFor({ relay }: Scene, ms: number): Promise<void> {
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

export async function holdAgent({ lab }: Scene, side: Side, ms: number): Promise<void> {
  const agent = lab.processOf(`${side} agent`)?.process;
  agent?.kill('SIGSTOP');
  await after(ms);
  agent?.kill('SIGCONT');
}

/** Power is cut: agent and QEMUs end at once, what was not synced is gone; a moment later the host is up again. */
export async function crashHost({ lab, disks }: Scene, side: Side): Promise<void> {
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
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return (command.split('\0')[0] ?? '').includes('qemu') && command.includes(folder);
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

/** The source's agent comes back with no Temporal server to ask: where the guest is still its own, it runs within seconds. */
async function agentBackAlone({ lab, watch }: Scene): Promise<void> {
  await Promise.all([lab.kill('source agent'), lab.kill('Temporal server')]);
  const owns = watch.journalOf('source').at(-1) === 'claimed';
  lab.startAgent(lab.a);
  if (owns) await until(RUNS_ON_WITHIN_MS, 'without Temporal the guest runs on at the source, which owns it', () => watch.running.includes('source'));
  await lab.startServer();
}
