/** What happens outside the processes: the link is cut, the listener is away, the disk is full. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageResult, MigrationResult } from '../../src/model/migration';
import { temporaryFolder } from '../helpers/data';
import { Lab, sharedLab } from '../helpers/lab';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import { Relay } from '../helpers/proxy';

const DISK_BYTES = 24 * 1024 * 1024;
const LIMIT = 1.2e6;
/** What of such an image has to travel, and what one cut may cost: a window and a commit interval, see kills.test.ts. */
const NEEDED_BYTES = 0.36 * DISK_BYTES;
const BYTES_A_CUT = 2 * LIMIT + 8 * 262_144;

const diskOf = ({ images }: MigrationResult): ImageResult => images.find((image) => image.imageId === 'vda')!;

const shared = sharedLab({ own: true, bArgs: ['--advertise-address', '127.0.0.2'] });

/** Agent b is reached at 127.0.0.2 through a relay to where it listens, 127.0.0.1. */
async function startBehindRelay(): Promise<{ lab: Lab; relay: Relay }> {
  const lab = await shared();
  const relay = new Relay({ host: '127.0.0.2', port: lab.b.port }, { host: '127.0.0.1', port: lab.b.port });
  await relay.listen();
  return { lab, relay };
}

test('goes on where it was after all sockets are destroyed in the middle of the transfer, twice', async () => {
  const { lab, relay } = await startBehindRelay();
  const { hashes } = await lab.defineVm('cut', DISK_BYTES);
  const id = await lab.migrate('cut', { bandwidthLimit: LIMIT });
  for (const share of [0.3, 0.6]) {
    await lab.untilShare(id, share);
    expect(relay.cut()).toBeGreaterThan(4);
  }
  const result = await lab.result(id);
  expect(result.path).toBe('dwcp');
  expect(lab.hashesOnB('cut')).toEqual(hashes);
  expect(diskOf(result).attempts).toBe(1);
  expect(diskOf(result).linkBytes).toBeLessThan(NEEDED_BYTES + 2 * BYTES_A_CUT);
  await lab.untilClean();
});

test('waits for a listener that is away for 20 s and then sends only what is missing', async () => {
  const { lab, relay } = await startBehindRelay();
  const { hashes } = await lab.defineVm('away', DISK_BYTES);
  const id = await lab.migrate('away', { bandwidthLimit: LIMIT });
  await lab.untilShare(id, 0.4);
  await relay.close();
  await new Promise((resolve) => setTimeout(resolve, 20_000));
  expect((await lab.orchestrator.getMigrationStatus(id)).state).toBe('running');
  await relay.listen();
  const result = await lab.result(id);
  expect(result.path).toBe('dwcp');
  expect(lab.hashesOnB('away')).toEqual(hashes);
  expect(diskOf(result).linkBytes).toBeLessThan(NEEDED_BYTES + BYTES_A_CUT);
  await lab.untilClean();
});

describeWhere([needsRoot(), needsProgram('mount', 'mount')])('a full disk at the destination', () => {
  const mounted: string[] = [];
  afterAll(() => mounted.forEach((folder) => execFileSync('umount', ['-l', folder])));

  test.each([
    ['the transfer', {}],
    ['the standard transfer', { enableDwcp: false }],
  ])('parks %s with DISK_FULL; with space again it goes on and nothing durable is lost', async (_, options) => {
    const small = join(temporaryFolder(), 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=10m', 'tmpfs', small]);
    mounted.push(small);
    const lab = await Lab.start({
      own: true,
      bDataDir: join(small, 'b'),
      agentArgs: ['--keep-baseline-copy', 'never'],
    });
    const { hashes } = await lab.defineVm('full', DISK_BYTES);
    // What is full before anything is sent is seen then (test/integration/room.test.ts); forced, it is seen here.
    const id = await lab.migrate('full', { bandwidthLimit: 4e6, force: true, ...options });
    const { progress } = await lab.until(id, 'parked', (status) => status.progress?.parked !== undefined);
    expect(progress?.parked?.error).toMatchObject({ code: 'DISK_FULL', side: 'destination' });
    execFileSync('mount', ['-o', 'remount,size=80m', small]);
    await lab.orchestrator.retryMigration(id, 'there is space now');
    const result = await lab.result(id);
    expect(result.path).toBe('enableDwcp' in options ? 'standard' : 'dwcp');
    expect(lab.hashesOnB('full')).toEqual(hashes);
    expect(diskOf(result).began).toBe('resumed');
    await lab.untilClean();
    await lab.stop();
  });

  test('where the VM is put on record leaves the hand-over in doubt: a cancel rolls nothing back, with space it completes', async () => {
    const folder = temporaryFolder();
    const vms = join(folder, 'b', 'vms');
    mkdirSync(vms, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', vms]);
    mounted.push(vms);
    const lab = await Lab.start({ own: true, bDataDir: join(folder, 'b') });
    const { hashes } = await lab.defineVm('doubt', DISK_BYTES);
    const id = await lab.migrate('doubt', { bandwidthLimit: 4e6 });
    await lab.untilShare(id, 0.3);
    const filler = join(vms, 'filler');
    expect(() => writeFileSync(filler, Buffer.alloc(1024 * 1024))).toThrow('ENOSPC');
    await lab.until(id, 'the switchover', ({ progress }) => progress?.phase === 'switchover');
    await lab.orchestrator.cancelMigration(id);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const { state, progress } = await lab.orchestrator.getMigrationStatus(id);
    expect(state).toBe('running');
    expect(progress).toMatchObject({ phase: 'switchover', pastReturn: false, cancelRequested: true });
    rmSync(filler);
    expect((await lab.result(id)).outcome).toBe('completed');
    expect(lab.hashesOnB('doubt')).toEqual(hashes);
    await lab.untilClean();
    await lab.stop();
  });

  test('where the journals of ownership lie does not hold a hand-over up: their space was set aside', async () => {
    const folder = temporaryFolder();
    const journals = ['a', 'b'].map((side) => join(folder, side, 'ownership'));
    for (const path of journals) {
      mkdirSync(path, { recursive: true });
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path]);
      mounted.push(path);
    }
    const lab = await Lab.start({ own: true, aDataDir: join(folder, 'a'), bDataDir: join(folder, 'b') });
    const { hashes } = await lab.defineVm('reserved', DISK_BYTES);
    const id = await lab.migrate('reserved', { bandwidthLimit: 4e6 });
    await lab.untilShare(id, 0.3);
    for (const path of journals)
      expect(() => writeFileSync(join(path, 'filler'), Buffer.alloc(4 * 1024 * 1024))).toThrow('ENOSPC');
    expect((await lab.result(id)).outcome).toBe('completed');
    expect(lab.hashesOnB('reserved')).toEqual(hashes);
    await lab.stop();
  });
});
