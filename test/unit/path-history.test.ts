/** What a host has learnt of its paths is nice to have: that it cannot be kept fails nothing, now or later. */
import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { PathHistory } from '../../src/store/path-history';
import { rememberPaths } from '../../src/sync/source/remember-paths';
import type { SourceMigration } from '../../src/sync/source/source-migration';
import type { PathStats } from '../../src/transport/path-streams';
import { temporaryFolder } from '../helpers/data';

const peer = { address: '192.0.2.1', port: 9876 };
const stats = { peer, rttMs: 20 } as PathStats;
const confirmed = new Map([['192.0.2.1:9876', { streams: 12, goodput: 1e7 }]]);

test('a history that cannot be written fails no transfer, and says so; the next row brings both to disk', async () => {
  const folder = temporaryFolder();
  const history = new PathHistory(folder);
  const lines: string[] = [];
  const migration = {
    migrationId: 'm1',
    context: { history, explain: (_id: string, line: string) => lines.push(line) },
  } as unknown as SourceMigration;
  await history.rows();
  // In the way of what is renamed there.
  mkdirSync(join(folder, 'path-history.json'));
  await rememberPaths(migration, [stats], confirmed, 16);
  expect(lines.at(-1)).toContain('is not kept');
  rmdirSync(join(folder, 'path-history.json'));
  await rememberPaths(migration, [stats], confirmed, 16);
  expect(await new PathHistory(folder).rows()).toHaveLength(2);
});

test('one that cannot be read is begun anew', async () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'path-history.json'));
  expect(await new PathHistory(folder).rows()).toEqual([]);
});
