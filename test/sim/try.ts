/** A try. */
import { programOf, runSeed, describePlan } from './run';

function main(): void {
  const [first = '1', count = '1', only] = process.argv.slice(2);
  const program = programOf();
  const t0 = performance.now();
  let steps = 0;
  const kinds = new Map<string, number[]>();
  const outcomes = new Map<string, number>();
  for (let seed = Number(first); seed < Number(first) + Number(count); seed += 1) {
    const result = runSeed(seed, { program, traced: count === '1', everyStep: process.env.EVERY === '1', ...(only !== undefined && { only: only.split(',') }) });
    steps += result.steps;
    outcomes.set(result.outcome, (outcomes.get(result.outcome) ?? 0) + 1);
    if (count === '1') for (const line of result.story) console.log(line);
    if (result.violation) { const key = result.violation.kind + ': ' + result.violation.text.replace(/[0-9]+/g, 'N').slice(0, 200); kinds.set(key, [...(kinds.get(key) ?? []), seed]); }
    if (process.env.SLOW && result.steps > 6000) console.log(seed, result.steps, result.simulatedSeconds, describePlan(result.plan));
  }
  for (const [key, seeds] of [...kinds].sort((a, b) => b[1].length - a[1].length)) console.log(seeds.length, key, seeds.slice(0, 8).join(' '));
  const { user, system } = process.cpuUsage();
  console.log(Object.fromEntries(outcomes), 'cpu ms a seed', (user + system) / 1000 / Number(count), 'wall', (performance.now() - t0) / Number(count), 'steps', steps / Number(count));
}
setImmediate(main);
