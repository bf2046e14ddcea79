/** What a host has learnt of its guests' moves is nice to have: that it cannot be kept fails nothing, now or later. */
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestResult } from '../../src/model/guest';
import type { ImageResult } from '../../src/model/migration';
import { MoveHistory } from '../../src/store/move-history';
import { rememberMove } from '../../src/sync/guest/remember-move';
import type { SourceContext } from '../../src/sync/source/source-context';
import { temporaryFolder } from '../helpers/data';

const moved = {
  migrationId: 'm1',
  vmId: 'web',
  destinationHost: 'b',
  expectedDowntimeMs: 300,
  rttMs: 50,
  linkBytesPerSecond: 10,
};
const guest = { downtimeMs: 450, rounds: 2, reason: '', responds: true, throttle: 0 } satisfies GuestResult;
const encoder = { times: { readMs: 1000, chooseMs: 0, deltaMs: 1000, packMs: 4000 } };
const images = [
  { imageId: 'vda', seconds: 9, linkBytes: 20, encoder },
  { imageId: 'memory', seconds: 7, began: 'empty', totalBytes: 100, linkBytes: 30, encoder },
] as unknown as ImageResult[];

test('what cannot be written fails no move, and is said; the next brings both to disk, each to its own host', async () => {
  const folder = temporaryFolder();
  const moves = new MoveHistory(folder);
  const lines: string[] = [];
  const context = {
    moves,
    pool: { threads: 2 },
    explain: (_id: string, line: string) => lines.push(line),
  } as unknown as SourceContext;
  await moves.to('b', 'web');
  mkdirSync(join(folder, 'move-history.json'));
  await rememberMove(context, moved, { guest, images });
  expect(lines.at(-1)).toContain('is not kept');
  rmdirSync(join(folder, 'move-history.json'));
  await rememberMove(context, moved, { guest, images });
  await rememberMove(context, { ...moved, destinationHost: 'c' }, { guest, images });
  const again = new MoveHistory(folder);
  expect([(await again.to('b', 'web')).length, (await again.to('c', 'web')).length]).toEqual([2, 1]);
  const [row] = await again.to('b', 'web');
  expect(row).toMatchObject({ seconds: 9, leastSeconds: 6, downtimeMs: 450, memory: { linkBytes: 30 } });
  await rememberMove(context, { ...moved, vmId: 'other' }, { guest, images });
  expect((await moves.to('b', 'web')).map(({ vmId }) => vmId)).toEqual(['other', 'web', 'web']);
});

test('of a guest whose pause is not known nothing is learnt, and a file that cannot be read is begun anew', async () => {
  const folder = temporaryFolder();
  const moves = new MoveHistory(folder);
  const { downtimeMs: _, ...unknown } = guest;
  await rememberMove({ moves, pool: { threads: 2 } } as unknown as SourceContext, moved, { guest: unknown, images });
  expect(await moves.to('b', 'web')).toEqual([]);
  writeFileSync(join(folder, 'move-history.json'), '{ half');
  expect(await new MoveHistory(folder).to('b', 'web')).toEqual([]);
});
