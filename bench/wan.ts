/**
 * `npm run bench -- wan`: one image over an emulated wide-area link, by every way there is, side by side in one run: the
 * standard transfer, rsync -z, zstd -3 over one TCP connection, DWCP cold, with a tenth changed, and unchanged.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeDiskImage, sha256OfFile } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { BLOCK_SIZE_BYTES } from '../src/model/image';
import { GIB } from '../src/model/units';
import { rsyncOver, zstdOver } from './peers';
import { type Row, report, say } from './report';
import { Stage } from './stage';
import { WanLink, wanRefusal } from './wan-link';

const LINK = { rate: '100mbit', rateBitsPerSecond: 100e6, rtt: '50ms', loss: '0.01%', cc: 'cubic' };
const CHANGED_SHARE = 0.1;

export async function benchWan(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const sizeBytes = args.includes('--small') ? GIB / 8 : GIB;
  const withPeers = !args.includes('--no-peers');
  const link = new WanLink('bench', LINK);
  link.up();
  const stage = new Stage({ name: 'wan', serverAddress: link.management, a: link.a, b: link.b });
  try {
    await stage.start();
    const rows = await measure(link, stage, sizeBytes, withPeers);
    report('wan', rows, json, {
      link: LINK,
      image: `${sizeBytes} bytes of ext4 with files of this machine`,
      changed: CHANGED_SHARE,
    });
  } finally {
    await stage.stop();
    link.down();
  }
}

async function measure(link: WanLink, stage: Stage, sizeBytes: number, withPeers: boolean): Promise<Row[]> {
  const original = join(stage.folder, 'original.img');
  const mkfs = await findTool('mkfs.ext4', 'e2fsprogs', stage.children, say);
  say('making the image');
  await makeDiskImage(original, sizeBytes, stage.children, mkfs);
  const hash = await sha256OfFile(original);
  const rows: Row[] = [];

  const counted = async (
    name: string,
    run: () => Promise<{ seconds: number; path: string; expected?: string }>,
  ): Promise<void> => {
    say(name);
    link.startSampling();
    const { seconds, path, expected } = await run();
    const { linkBytes, utilisation } = link.stopSampling();
    const verified = (await sha256OfFile(path)) === (expected ?? hash);
    rows.push({
      name,
      seconds,
      linkBytes,
      rawBytes: sizeBytes,
      ratio: sizeBytes / linkBytes,
      ...(utilisation !== undefined && { utilisation }),
      verified,
    });
    if (!verified) throw new Error(`${name}: the image that arrived is not the one that was sent`);
  };

  const define = async (vmId: string): Promise<string> => {
    const path = join(stage.folder, 'vms', vmId, 'disk.img');
    mkdirSync(dirname(path), { recursive: true });
    // Sparse as the original, or the standard transfer would have zeros to carry.
    execFileSync('cp', ['--sparse=always', original, path]);
    await stage.defineVm(vmId, stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
    return path;
  };
  const move = async (vmId: string, back: boolean, enableDwcp = true): Promise<number> => {
    const [source, destination] = back ? [stage.b, stage.a] : [stage.a, stage.b];
    const {
      totalSeconds,
      tier,
      images: [image],
    } = await stage.migrate(vmId, source, destination, { bandwidthLimit: 0, enableDwcp });
    say(
      `  ${tier ?? 'no'} tier, ${image?.streams ?? 0} streams, level ${image?.level ?? 0}, ` +
        `${((image?.linkBytes ?? 0) / 1e6).toFixed(1)} MB by the program’s own count`,
    );
    return totalSeconds;
  };

  if (withPeers) {
    await define('standard');
    await counted('standard', async () => ({
      seconds: await move('standard', false, false),
      path: stage.imageOnB('standard', 'vda'),
    }));
    rmSync(stage.imageOnB('standard', 'vda'));
    await findTool('rsync', 'rsync', stage.children, say);
    await counted('rsync', () => rsyncOver(link, stage.children, stage.folder, original));
    await findTool('zstd', 'zstd', stage.children, say);
    await counted('zstd -3', () => zstdOver(link, stage.children, stage.folder, original));
  }

  const atHome = await define('dwcp');
  await counted('dwcp cold', async () => ({ seconds: await move('dwcp', false), path: stage.imageOnB('dwcp', 'vda') }));
  rewrite(stage.imageOnB('dwcp', 'vda'), sizeBytes);
  const changed = await sha256OfFile(stage.imageOnB('dwcp', 'vda'));
  await counted('dwcp 10% changed', async () => ({
    seconds: await move('dwcp', true),
    path: atHome,
    expected: changed,
  }));
  await counted('dwcp unchanged', async () => ({
    seconds: await move('dwcp', false),
    path: stage.imageOnB('dwcp', 'vda'),
    expected: changed,
  }));
  return rows;
}

/** Rewrites every tenth block as a whole, with bytes that do not compress. */
function rewrite(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'r+');
  for (let block = 3; block < sizeBytes / BLOCK_SIZE_BYTES; block += 1 / CHANGED_SHARE)
    writeSync(fd, randomBytes(BLOCK_SIZE_BYTES), 0, BLOCK_SIZE_BYTES, block * BLOCK_SIZE_BYTES);
  closeSync(fd);
}
