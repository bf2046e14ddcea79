/**
 * `npm run bench -- guests --server [--moves N]`: a real server (server-guest.ts) moved there and back over the emulated wide-area link
 * while it works, ten times; behind each move its database has to be whole: two cycles of its work, and its sums and indexes as they
 * have to be.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrateOptions } from '../src/control/orchestrator';
import type { MigrationResult } from '../src/model/migration';
import { VmRegistry } from '../src/store/vm-registry';
import { until, wait } from '../src/system/wait';
import { numberOf } from './flags';
import { type Row, report, say } from './report';
import { type Cycle, lastCycle, makeServerGuest, serverCommand } from './server-guest';
import { Stage, type StageHost } from './stage';
import { type LinkSetting, WanLink, wanRefusal } from './wan-link';

const WIDE: LinkSetting = { rate: '100mbit', rateBitsPerSecond: 100e6, rtt: '50ms', loss: '0.01%', cc: 'cubic' };
const MOVES = 10;
const VM = 'server';
/** Of the first, with its boot; under an emulated processor that others have too. */
const BOOT_MS = 900_000;
const CYCLE_MS = 600_000;
/** Its processor, and the agents', are those of a machine that others may have too. */
const LONGEST_PAUSE_MS = 20_000;

export async function benchServer(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const moves = numberOf(args, '--moves') ?? MOVES;
  const link = new WanLink(`srv${process.pid % 1000}`, WIDE);
  link.up();
  const stage = new Stage({ name: 'server', serverAddress: link.management, a: link.a, b: link.b });
  const rows: Row[] = [];
  try {
    await stage.start();
    await startServer(stage);
    let [from, to] = [stage.a, stage.b];
    for (let move = 1; move <= moves; move += 1) {
      const row = await moved(stage, [from, to], move);
      rows.push(row);
      say(
        `  ${row.name}: ${row.seconds?.toFixed(1) ?? '?'} s, ${row.downtimeMs?.toFixed(0) ?? '?'} ms, ${row.note ?? ''}`,
      );
      if (row.verified !== true) throw new Error(`${row.name}: ${row.note ?? ''}`);
      [from, to] = [to, from];
    }
  } finally {
    await stage.stop();
    link.down();
  }
  report('guests-server', rows, json, { link: WIDE, moves });
}

async function startServer(stage: Stage): Promise<void> {
  const folder = join(stage.folder, 'guest');
  mkdirSync(folder);
  const guest = await makeServerGuest(join(folder, 'made'), stage.children);
  const command = serverCommand(guest, join(folder, 'serial'));
  for (const words of [
    ['vm', 'define', VM, '--data-dir', stage.a.dataDir, '--', ...command],
    ['vm', 'start', VM, '--data-dir', stage.a.dataDir],
  ]) {
    const child = stage.children.startDwcp(`vm-${words[1] ?? ''}`, words, {}, stage.a.prefix);
    if ((await child.ended) !== 0) throw new Error(readFileSync(child.logFile, 'utf8'));
  }
  say('its server starts');
  const first = await nextCycle(join(folder, 'serial'), 0, BOOT_MS);
  if (first.wrong !== undefined) throw new Error(`before its first move ${first.wrong}`);
  say(`  ${first.transactions} transactions in its first cycle`);
}

async function moved(stage: Stage, way: readonly [StageHost, StageHost], move: number): Promise<Row> {
  const serial = join(new VmRegistry(way[1].dataDir).runFolder(VM), 'serial');
  const options = { maxDowntimeMs: LONGEST_PAUSE_MS, autoConverge: true };
  const { guest, linkBytes, totalSeconds } = await toItsEnd(stage, way, options);
  // The first that it says there was begun before its move, and has gone through it.
  const through = await nextCycle(serial, 0, CYCLE_MS);
  const after = await nextCycle(serial, through.number, CYCLE_MS);
  const wrong = through.wrong ?? after.wrong;
  return {
    name: `move ${move}`,
    seconds: totalSeconds,
    linkBytes,
    ...(guest?.downtimeMs !== undefined && { downtimeMs: guest.downtimeMs }),
    rounds: guest?.rounds ?? 0,
    verified: wrong === undefined,
    note:
      wrong ??
      `${through.transactions} transactions in the cycle that went over, ${after.transactions} in the next; ${guest?.pauses ?? 1} pauses`,
  };
}

/** @throws where it waits for an operator: here is none */
async function toItsEnd(
  stage: Stage,
  [from, to]: readonly [StageHost, StageHost],
  options: MigrateOptions,
): Promise<MigrationResult> {
  const id = await stage.orchestrator.migrateVm(VM, from.hostId, to.hostId, options);
  for (;;) {
    const { state, progress } = await stage.orchestrator.getMigrationStatus(id);
    if (progress?.parked) throw new Error(`it waits for an operator: ${progress.parked.error.message}`);
    if (state !== 'running') return stage.orchestrator.waitForResult(id);
    await wait(1000);
  }
}

/** The first cycle behind one. */
async function nextCycle(serial: string, behind: number, withinMs: number): Promise<Cycle> {
  const said = (): string => (existsSync(serial) ? readFileSync(serial, 'utf8') : '');
  const found = (): Cycle | undefined => {
    const last = lastCycle(said());
    return last && last.number > behind ? last : undefined;
  };
  await until(() => found() !== undefined, { everyMs: 500, withinMs });
  const cycle = found();
  if (!cycle) throw new Error(`the server says nothing more: ${said().slice(-300)}`);
  return cycle;
}
