/**
 * Transfers that are told to stop, at the moments when nobody is listening yet: they stop all the same, and do not go on
 * or wait for ever.
 */
import { open } from 'node:fs/promises';
import { DwcpError } from '../../src/model/errors';
import { compileMigrationOptions } from '../../src/model/options';
import { selectLevelAndStreams } from '../../src/model/tiers';
import { shareVersions } from '../../src/sync/codec/version-cache';
import { ScanFeed } from '../../src/sync/feeds/block-feed';
import { LiveFeed } from '../../src/sync/feeds/live-feed';
import { GuestSender } from '../../src/sync/guest/guest-sender';
import { ImageSender } from '../../src/sync/source/image-sender';
import { UNLIMITED } from '../../src/sync/source/source-context';
import type { SourceMigration } from '../../src/sync/source/source-migration';
import { diskLab, SIZE } from '../helpers/disk-lab';
import { prepareMove } from '../helpers/moves';

const options = compileMigrationOptions({ bandwidthLimit: 0 });
const start = selectLevelAndStreams({ rttMs: 0.2, bandwidthBytesPerSecond: 1e8 }, options, true);
const image = { imageId: 'vda', kind: 'disk' as const, sizeBytes: SIZE };

async function ready(): Promise<{ migration: SourceMigration; disk: string }> {
  const here = await diskLab();
  await prepareMove('m1', 'vm', here.a, here.b);
  const migration = here.a.sources.open('m1', here.b.destinationFor('m1', here.a.hostId), UNLIMITED);
  await (await migration.session()).establish(2);
  return { migration, disk: here.disk };
}

describe('a transfer that is cancelled while it is being set up', () => {
  const cancelled = new DwcpError('CANCELLED', 'not wanted any more');

  it('of a stopped image ends with the reason', async () => {
    const { migration, disk } = await ready();
    const feed = await ScanFeed.open(disk, SIZE);
    const abort = new AbortController();
    const restart = feed.restart.bind(feed);
    // The destination has said what it holds; nothing is sent yet.
    feed.restart = (settled) => {
      abort.abort(cancelled);
      restart(settled);
    };
    const sender = new ImageSender(migration, {
      vmId: 'vm',
      image,
      path: disk,
      feed,
      start,
      options,
      linkBytesPerSecond: 1e8,
    });
    await expect(sender.run(abort.signal)).rejects.toBe(cancelled);
    await feed.close();
  });

  it('of a running guest ends with the reason, though its feeds stay open', async () => {
    const { migration, disk } = await ready();
    const file = await open(disk);
    const feed = new LiveFeed({ file: { fd: file.fd, sizeBytes: SIZE } });
    const abort = new AbortController();
    const sender = new GuestSender(migration, {
      vmId: 'vm',
      versions: shareVersions(1),
      diskPaths: [],
      references: undefined,
      images: [{ image, feed }],
      start,
      options,
      linkBytesPerSecond: 1e8,
      opened: () => {
        abort.abort(cancelled);
        return Promise.resolve();
      },
      ready: () => Promise.resolve(),
      begun: () => Promise.resolve(),
    });
    await expect(sender.run(abort.signal)).rejects.toBe(cancelled);
    await file.close();
  });
});

describe('a migration that is closed here while it is being sent', () => {
  it('ends the transfer at once, and what was asked of the destination too', async () => {
    const here = await diskLab();
    await prepareMove('m1', 'vm', here.a, here.b);
    const migration = here.a.sources.open('m1', here.b.destinationFor('m1', here.a.hostId), {
      ...UNLIMITED,
      bandwidthLimit: 1_000_000,
    });
    const session = await migration.session();
    await session.establish(2);
    const feed = await ScanFeed.open(here.disk, SIZE);
    const sender = new ImageSender(migration, {
      vmId: 'vm',
      image,
      path: here.disk,
      feed,
      start,
      options,
      linkBytesPerSecond: 1e6,
    });
    const running = sender.run(new AbortController().signal);
    running.catch(() => undefined);
    while (sender.progress.linkBytes < 500_000) await new Promise((resolve) => setTimeout(resolve, 20));
    const asked = session.control.request('guest_left', {});
    asked.catch(() => undefined);
    migration.close();
    await expect(running).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await expect(asked).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await expect(session.control.request('guest_left', {})).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await feed.close();
  });
});
