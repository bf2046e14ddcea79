/**
 * `npm run bench -- NAME [--json] [--small]`: measurements against peers. Names and what they need: bench/README.md.
 */
import { benchAnchors } from './anchors';
import { benchDraw } from './draw';
import { benchEncoding } from './encoding';
import { benchEventLoop } from './event-loop';
import { benchForecast } from './forecast';
import { benchFuzz } from './fuzz';
import { benchGuests } from './guests';
import { benchKills } from './kills';
import { benchLevels } from './levels';
import { benchLive } from './live';
import { benchLoopback } from './loopback';
import { benchMatrix } from './matrix';
import { benchMemory } from './memory';
import { benchModel } from './model';
import { benchRamImage } from './ram-image';
import { benchSim } from './sim';
import { benchTransport } from './transport';
import { benchTuner } from './tuner';
import { benchWan } from './wan';

const BENCHES: Readonly<Record<string, (json: boolean, args: readonly string[]) => Promise<void>>> = {
  wan: benchWan,
  live: benchLive,
  forecast: benchForecast,
  matrix: benchMatrix,
  loopback: benchLoopback,
  memory: benchMemory,
  guests: benchGuests,
  kills: benchKills,
  'event-loop': benchEventLoop,
  'ram-image': benchRamImage,
  draw: benchDraw,
  transport: benchTransport,
  anchors: benchAnchors,
  tuner: benchTuner,
  encoding: benchEncoding,
  levels: benchLevels,
  model: benchModel,
  sim: benchSim,
  fuzz: benchFuzz,
};

async function main([name = '', ...args]: readonly string[]): Promise<void> {
  const run = BENCHES[name];
  if (!run) {
    process.stderr.write(
      `npm run bench -- NAME [--json] [--small], with NAME one of: ${Object.keys(BENCHES).join(', ')}\n`,
    );
    process.exitCode = 2;
    return;
  }
  await run(args.includes('--json'), args);
}

// Children end with this process; an emulated link goes with the next bench that needs one.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

main(process.argv.slice(2)).then(
  () => process.exit(),
  (error: unknown) => {
    process.stderr.write(`dwcp bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
