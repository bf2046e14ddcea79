/**
 * A running guest's move is cancelled at moments spread over all of it, and migrated again at once, each time: it arrives.
 * A run of CI takes a few moments; `npm run bench -- matrix --cancels 40` takes as many as one likes (DWCP_CANCELS).
 */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { hasCode, toDwcpError } from '../../src/model/errors';
import { MIB } from '../../src/model/units';
import { endPlace, startPlace } from '../helpers/moving-vm';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { Scene } from '../helpers/scene';
import { after, within } from '../helpers/waiting';

const MOMENTS = Number(process.env.DWCP_CANCELS ?? 4);
const BYTES_PER_SECOND = 8e6;
const ARRIVES_MS = 90_000;
const EACH_MS = 150_000;

describeWhere([needsQemu(), needsAssembler()])('a cancel and a migration at once', () => {
  test(
    `at ${MOMENTS} moments of a move: it arrives`,
    async () => {
      const guest = buildCountingGuest(2048, { pagesPerTick: 160 }, 12 * MIB, true);
      const place = await startPlace();
      // The first also waits for the agents to be there.
      await undisturbed(await Scene.at(place, 'first', guest));
      const wholeMs = await undisturbed(await Scene.at(place, 'whole', guest));
      const failed: string[] = [];
      for (let moment = 0; moment < MOMENTS; moment += 1) {
        const afterMs = Math.round((wholeMs * (moment + 0.5)) / MOMENTS);
        const scene = await Scene.at(place, `cancel-${moment + 1}`, guest);
        const outcome = await cancelledAt(scene, afterMs).catch((error: unknown) => `FAILED: ${String(error)}`);
        if (outcome.startsWith('FAILED')) {
          failed.push(`${afterMs} ms: ${outcome}`);
          process.stderr.write(scene.report());
        }
        write(afterMs, wholeMs, outcome);
        await scene.leave();
      }
      expect(failed).toEqual([]);
      await endPlace(place);
    },
    (MOMENTS + 2) * EACH_MS,
  );
});

async function undisturbed(scene: Scene): Promise<number> {
  const startedAt = Date.now();
  await scene.lab.result(await scene.migrate({ bandwidthLimit: BYTES_PER_SECOND }));
  const wholeMs = Date.now() - startedAt;
  await scene.settled();
  await scene.leave();
  return wholeMs;
}

async function cancelledAt(scene: Scene, afterMs: number): Promise<string> {
  const first = await scene.migrate({ bandwidthLimit: BYTES_PER_SECOND });
  await after(afterMs);
  await scene.cancel();
  const second = await scene.migrateAtOnce({ bandwidthLimit: BYTES_PER_SECOND });
  const ends = await Promise.all([first, second].map((id) => within(ARRIVES_MS, `the end of ${id}`, endOf(scene, id))));
  await scene.settled();
  const outcome = await scene.outcome();
  if (outcome !== 'moved') throw new Error(`${outcome}: ${ends.join(', then ')}`);
  return ends.join(', then ');
}

async function endOf({ lab }: Scene, id: string): Promise<string> {
  try {
    await lab.result(id);
    return 'arrived';
  } catch (error) {
    // Cancelled too late: there is nothing to move any more.
    if (hasCode(error, 'CANCELLED', 'VM_NOT_HERE')) return toDwcpError(error, 'INTERNAL').code;
    throw error;
  }
}

function write(afterMs: number, wholeMs: number, outcome: string): void {
  const out = process.env.DWCP_MATRIX_OUT;
  if (out === undefined) return;
  mkdirSync(out, { recursive: true });
  appendFileSync(join(out, 'cancels.jsonl'), `${JSON.stringify({ afterMs, wholeMs, outcome })}\n`);
}
