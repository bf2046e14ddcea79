/**
 * `npm run bench -- kills`: kills at random moments over all processes, a migration each; counts verified arrivals.
 */
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeDiskImage, sha256OfFile } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { MIB } from '../src/model/units';
import { report, say } from './report';
import { Stage } from './stage';

const VICTIMS = ['source agent', 'destination agent', 'control worker', 'temporal server'] as const;

export async function benchKills(json: boolean, args: readonly string[]): Promise<void> {
  const rounds = args.includes('--small') ? 4 : 20;
  const stage = new Stage({ name: 'kills' });
  const startedAt = performance.now();
  const arrivals: boolean[] = [];
  try {
    await stage.start();
    const path = join(stage.folder, 'vms', 'disk.img');
    mkdirSync(dirname(path), { recursive: true });
    await makeDiskImage(path, 96 * MIB, stage.children, await findTool('mkfs.ext4', 'e2fsprogs', stage.children, say));
    await stage.defineVm('kills', stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
    const onB = stage.imageOnB('kills', 'vda');
    for (let round = 0; round < rounds; round += 1) {
      const back = round % 2 === 1;
      const [source, destination] = back ? [stage.b, stage.a] : [stage.a, stage.b];
      const hash = await sha256OfFile(back ? onB : path);
      const victim = VICTIMS[Math.floor(Math.random() * VICTIMS.length)] ?? 'source agent';
      const afterMs = Math.random() * 6000;
      const id = await stage.orchestrator.migrateVm('kills', source.hostId, destination.hostId, {
        bandwidthLimit: 8e6,
        enableDeltaSync: false,
      });
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      await stage.killAndRestart(victim, source, destination);
      const result = await waitForEnd(stage, id);
      const arrived = result && (await sha256OfFile(back ? path : onB)) === hash;
      arrivals.push(arrived);
      say(
        `${round + 1}/${rounds}: ${victim} killed after ${(afterMs / 1000).toFixed(1)} s: ${arrived ? 'arrived, verified' : 'NOT ARRIVED'}`,
      );
      if (!arrived) break;
    }
  } finally {
    await stage.stop();
  }
  const good = arrivals.filter(Boolean).length;
  report(
    'kills',
    [
      {
        name: 'dwcp kills',
        seconds: (performance.now() - startedAt) / 1000,
        verified: good === rounds,
        note: `${good} verified arrivals of ${rounds}`,
      },
    ],
    json,
    { rounds },
  );
  if (good !== rounds) process.exitCode = 1;
}

async function waitForEnd(stage: Stage, id: string): Promise<boolean> {
  for (const deadline = Date.now() + 240_000; Date.now() < deadline; ) {
    const status = await stage.orchestrator.getMigrationStatus(id).catch(() => undefined);
    if (status && status.state !== 'running') return status.state === 'completed';
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  return false;
}
