/** A try. */
import { Program } from './loader';
import { World } from './world';

function one(program: Program, seed: number, mode: string, traced: boolean): { steps: number; ms: number; world: World } {
  const t0 = performance.now();
  const world = new World(seed, program, { running: mode === 'live' || mode === 'memory', diskBlocks: mode === 'memory' ? 0 : 3 }, { traced, everyStep: process.env.EVERY === '1' });
  world.startAgent('a');
  world.startAgent('b');
  world.scheduler.post(undefined, 'start', () => void world.migrate('a', 'b'), 1000);
  for (let step = 0; step < Number(process.env.STEPS ?? 20000); step += 1) {
    if (!world.scheduler.step()) break;
    if (world.workflow && world.workflow.status !== 'RUNNING') break;
  }
  return { steps: world.scheduler.steps, ms: performance.now() - t0, world };
}

function main(): void {
  const [seed = '1', mode = 'stopped', count = '0'] = process.argv.slice(2);
  const program = new Program();
  if (count === '0') {
    const { world, steps, ms } = one(program, Number(seed), mode, true);
    for (const line of world.scheduler.story) console.log(line);
    console.log(steps, 'steps', ms, 'ms', world.workflow?.status, JSON.stringify(world.workflow?.result ?? null)?.slice(0, 300), world.workflow?.failure);
    return;
  }
  const t0 = performance.now();
  let steps = 0;
  for (let n = 0; n < Number(count); n += 1) { const r = one(program, Number(seed) + n, mode, false); steps += r.steps; if (r.world.workflow?.status !== 'COMPLETED') console.log(Number(seed) + n, r.world.workflow?.status, r.steps); }
  const ms = performance.now() - t0;
  console.log(ms / Number(count), 'ms a seed', steps / Number(count), 'steps', (ms * 1000) / steps, 'us a step');
}
setImmediate(main);
process.on('unhandledRejection', (e) => { console.log('UNHANDLED', e); });
