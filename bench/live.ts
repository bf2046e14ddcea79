/**
 * `npm run bench -- live`: a running Linux guest over an emulated wide-area link, by QEMU's own ways and by DWCP, side by side
 * in one run; memory alone, then with its disk. The guest's own checksums say whether what arrived is what was there.
 *
 *   --runs N (2)   --local: 1 Gbit/s, 1 ms   --narrow: 20 Mbit/s, 50 ms, memory alone, QEMU's fastest way beside it
 *   --zero: a guest of 2 GiB that is mostly zero, DWCP alone
 *   --faults: memory alone by DWCP, undisturbed, with the link cut for 30 s, with the destination's agent killed in its midst
 *   --trace: when each step of a migration began and ended
 *   --memory-only, --disk-only, --dwcp-only, --peers-only: parts of it, shown and not kept
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type LinuxGuest,
  type LinuxGuestOptions,
  linuxGuestCommand,
  makeLinuxGuest,
  serialLine,
  ticksOf,
} from '../src/cli/demo/linux-guest';
import { QmpClient } from '../src/hypervisor/qemu/qmp-client';
import { runPlaces } from '../src/hypervisor/qemu/run-places';
import { baselinePathOf } from '../src/store/baselines';
import { VmRegistry } from '../src/store/vm-registry';
import { changedPages } from './changed-pages';
import { endGuest, moveByQemu, type PeerKind, startBenchGuest } from './live-peers';
import { type Row, report, say } from './report';
import { peakRssBytes, Stage, type StageHost } from './stage';
import { traceSteps } from './trace';
import { type LinkSetting, WanLink, wanRefusal } from './wan-link';

const WIDE: LinkSetting = { rate: '100mbit', rateBitsPerSecond: 100e6, rtt: '50ms', loss: '0.01%', cc: 'cubic' };
const NARROW: LinkSetting = { rate: '20mbit', rateBitsPerSecond: 20e6, rtt: '50ms', loss: '0.01%', cc: 'cubic' };
const LOCAL: LinkSetting = { rate: '1gbit', rateBitsPerSecond: 1e9, rtt: '1ms', loss: '0%', cc: 'cubic' };
const GUEST: LinuxGuestOptions = {
  memoryMiB: 512,
  diskMiB: 512,
  filesMiB: 300,
  randomMiB: 64,
  dirtyKiBPerTick: 128,
  diskKiBPerSecond: 0,
};
const PEERS: readonly PeerKind[] = ['qemu tcp', 'qemu xbzrle', 'qemu multifd', 'qemu multifd+zstd'];
const FASTEST: readonly PeerKind[] = ['qemu multifd+zstd'];
const BOOT_MS = 180_000;
const STAY_MS = 60_000;
const CUT_MS = 30_000;
/** In the midst of what a cold move brings. */
const FAULT_AT_BYTES = 40e6;
/**
 * In every third the guest looks at one of its files and one piece of its random memory; reading bad kernel memory
 * shows in all of them.
 */
const CHECK_TICKS = 30;

export async function benchLive(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const runs = Number(args[args.indexOf('--runs') + 1] ?? 0) || (args.includes('--runs') ? 1 : 2);
  const narrow = args.includes('--narrow');
  const setting = args.includes('--local') ? LOCAL : narrow ? NARROW : WIDE;
  const link = new WanLink('bench', setting);
  link.up();
  const stage = new Stage({ name: 'live', serverAddress: link.management, a: link.a, b: link.b });
  try {
    await stage.start();
    const zero = args.includes('--zero');
    const faults = args.includes('--faults');
    const name = faults
      ? 'live-faults'
      : zero
        ? 'live-zero'
        : args.includes('--local')
          ? 'live-local'
          : narrow
            ? 'live-narrow'
            : 'live';
    const options = zero ? { ...GUEST, memoryMiB: 2048 } : GUEST;
    const bench = new LiveBench(
      link,
      stage,
      options,
      await makeLinuxGuest(join(stage.folder, 'guest'), options, stage.children, say),
    );
    if (faults) await bench.faults();
    else if (!args.includes('--disk-only')) await bench.all(false, runs, args.includes('--dwcp-only') || zero);
    if (!args.includes('--memory-only') && !faults && !zero && setting === WIDE)
      await bench.all(true, runs, args.includes('--dwcp-only'));
    report(name, bench.rows, json, { link: setting, guest: options, runs, stayMs: STAY_MS });
  } finally {
    await stage.stop();
    link.down();
  }
}

class LiveBench {
  readonly rows: Row[] = [];
  readonly #link: WanLink;
  readonly #stage: Stage;
  readonly #options: LinuxGuestOptions;
  readonly #guest: LinuxGuest;
  #turn = 0;
  /** Of the move before. */
  #memoryBytes = 0;

  constructor(link: WanLink, stage: Stage, options: LinuxGuestOptions, guest: LinuxGuest) {
    this.#link = link;
    this.#stage = stage;
    this.#options = options;
    this.#guest = guest;
  }

  async all(withDisk: boolean, runs: number, dwcpOnly: boolean): Promise<void> {
    const suffix = withDisk ? ' and disk' : '';
    const options = withDisk ? { ...this.#options, diskKiBPerSecond: 128 } : { ...this.#options, readOnlyDisk: true };
    for (let run = 0; run < runs; run += 1) {
      if (!dwcpOnly)
        for (const kind of process.argv.includes('--narrow') ? FASTEST : PEERS)
          if (!withDisk || kind !== 'qemu xbzrle') await this.#peer(kind, suffix, options, withDisk);
      if (!process.argv.includes('--peers-only')) await this.#dwcp(suffix, options, withDisk);
    }
  }

  /** What a fault in the midst of the memory rounds costs in bytes: against an undisturbed move of the same guest. */
  async faults(): Promise<void> {
    const { a, b } = this.#stage;
    const options = { ...this.#options, readOnlyDisk: true };
    const faults: readonly [string, () => Promise<void>][] = [
      ['', () => Promise.resolve()],
      [
        ', link cut for 30 s',
        async () => {
          this.#link.cut();
          await new Promise((resolve) => setTimeout(resolve, CUT_MS));
          this.#link.mend();
        },
      ],
      [', destination agent killed', () => this.#stage.killAndRestart('destination agent', a, b)],
    ];
    for (const [what, inflict] of faults) {
      const { vmId, serial } = await this.#boot(false, options);
      const moving = this.#move(vmId, `dwcp cold${what}`, a, b, serial);
      for (const deadline = Date.now() + 60_000; this.#link.crossedBytes < FAULT_AT_BYTES && Date.now() < deadline; )
        await new Promise((resolve) => setTimeout(resolve, 50));
      await inflict();
      await moving;
      await this.#command(b, 'stop', ['vm', 'stop', vmId, '--now', '--data-dir', b.dataDir]);
    }
    const undisturbed = this.rows[0]?.linkBytes ?? 0;
    for (const row of this.rows.slice(1))
      say(`${row.name}: ${(((row.linkBytes ?? 0) - undisturbed) / 1e6).toFixed(1)} MB more than undisturbed`);
  }

  async #peer(kind: PeerKind, suffix: string, options: LinuxGuestOptions, withDisk: boolean): Promise<void> {
    say(`${kind}${suffix}`);
    const folder = join(this.#stage.folder, `peer-${(this.#turn += 1)}`);
    mkdirSync(folder);
    const [diskA, diskB] = withDisk
      ? [join(folder, 'a.img'), join(folder, 'b.img')]
      : [this.#guest.disk, this.#guest.disk];
    if (withDisk) {
      copyFileSync(this.#guest.disk, diskA);
      await this.#stage.children.run('empty', 'truncate', ['-s', `${options.diskMiB}M`, diskB]);
    }
    const serial = (side: string): string => join(folder, `serial-${side}`);
    const source = await startBenchGuest(
      folder,
      'a',
      linuxGuestCommand({ ...this.#guest, disk: diskA }, options, serial('a')),
      this.#link.a.prefix,
    );
    await serialLine(serial('a'), /^ready/, BOOT_MS);
    await serialLine(serial('a'), /^tick 5$/, BOOT_MS);
    const destination = await startBenchGuest(
      folder,
      'b',
      linuxGuestCommand({ ...this.#guest, disk: diskB }, options, serial('b')),
      this.#link.b.prefix,
      ['-incoming', 'defer'],
    );
    this.#link.startSampling();
    const { seconds, downtimeMs } = await moveByQemu(kind, this.#link, source, destination, withDisk);
    const { linkBytes, utilisation } = this.#link.stopSampling();
    const verified = await this.#verify(serial('b'), ticksOf(serial('a')).last);
    await endGuest(source);
    await endGuest(destination);
    this.#row({
      name: `${kind}${suffix}`,
      seconds,
      linkBytes,
      downtimeMs,
      verified,
      ...(utilisation !== undefined && { utilisation }),
    });
  }

  async #dwcp(suffix: string, options: LinuxGuestOptions, withDisk: boolean): Promise<void> {
    const { a, b } = this.#stage;
    const { vmId, serial } = await this.#boot(withDisk, options);
    await this.#move(vmId, `dwcp cold${suffix}`, a, b, serial);
    say(`  ${STAY_MS / 1000} s at the destination`);
    await new Promise((resolve) => setTimeout(resolve, STAY_MS));
    const [held, before] = [baselinePathOf(this.#memoryOn(a, vmId)), join(this.#stage.folder, `${vmId}-before`)];
    await this.#stage.children.run('copy', 'cp', ['--sparse=always', held, before]);
    await this.#move(vmId, `dwcp way back${suffix}`, b, a, this.#serialOn(b, vmId));
    const { pages, packedBytes } = changedPages(before, this.#memoryOn(a, vmId));
    const sent = this.#memoryBytes;
    say(
      `  ${pages} pages had changed, ${(packedBytes / 1e6).toFixed(1)} MB under zstd -3; memory took ` +
        `${(sent / packedBytes).toFixed(2)} times that`,
    );
    await this.#command(a, 'stop', ['vm', 'stop', vmId, '--now', '--data-dir', a.dataDir]);
  }

  async #boot(withDisk: boolean, options: LinuxGuestOptions): Promise<{ vmId: string; serial: string }> {
    const vmId = `guest-${(this.#turn += 1)}`;
    const { a } = this.#stage;
    const folder = join(this.#stage.folder, vmId);
    mkdirSync(folder);
    const disk = withDisk ? join(folder, 'disk.img') : this.#guest.disk;
    if (withDisk) copyFileSync(this.#guest.disk, disk);
    const command = linuxGuestCommand({ ...this.#guest, disk }, options, join(folder, 'serial'));
    await this.#command(a, 'define', ['vm', 'define', vmId, '--data-dir', a.dataDir, '--', ...command]);
    await this.#command(a, 'start', ['vm', 'start', vmId, '--data-dir', a.dataDir]);
    await serialLine(join(folder, 'serial'), /^tick 5$/, BOOT_MS);
    return { vmId, serial: join(folder, 'serial') };
  }

  async #move(
    vmId: string,
    name: string,
    source: StageHost,
    destination: StageHost,
    serialBefore: string,
  ): Promise<void> {
    say(name);
    const lastTick = (): number => ticksOf(serialBefore).last;
    const monitor = await QmpClient.connect(runPlaces(new VmRegistry(source.dataDir).runFolder(vmId)).monitorPath);
    const stopped = monitor.event('the guest’s stop', ({ name: event }) => event === 'STOP', 900_000);
    this.#link.startSampling();
    const startedAt = Date.now();
    const { guest, images } = await this.#stage.migrate(vmId, source, destination, { bandwidthLimit: 0 });
    const { linkBytes, utilisation } = this.#link.stopSampling();
    if (process.argv.includes('--trace')) await traceSteps(this.#stage, vmId, startedAt);
    const stop = await stopped;
    monitor.close();
    const downtimeMs = guest?.downtimeMs ?? NaN;
    const seconds = (stop.atMs + downtimeMs - startedAt) / 1000;
    const verified = await this.#verify(this.#serialOn(destination, vmId), lastTick());
    const memory = images.find(({ imageId }) => imageId === 'memory');
    this.#memoryBytes = memory?.linkBytes ?? 0;
    const sent = images.map(({ imageId, linkBytes: bytes }) => `${imageId} ${(bytes / 1e6).toFixed(1)} MB`).join(', ');
    const rss = Math.max(
      peakRssBytes(this.#stage.agents.get(source.hostId)),
      peakRssBytes(this.#stage.agents.get(destination.hostId)),
    );
    this.#row({
      name,
      seconds,
      linkBytes,
      downtimeMs,
      rounds: guest?.rounds ?? 0,
      verified,
      peakRssBytes: rss,
      ...(utilisation !== undefined && { utilisation }),
      note:
        `${sent}; ${memory?.streams ?? 0} streams, level ${memory?.level ?? 0}, delta hits ` +
        `${(100 * (memory?.deltaHitRate ?? 0)).toFixed(0)} %`,
    });
    say(`  ${guest?.reason ?? ''}`);
  }

  #row(row: Row): void {
    this.rows.push(row);
    say(
      `  ${row.seconds?.toFixed(1) ?? '?'} s, ${((row.linkBytes ?? 0) / 1e6).toFixed(1)} MB, downtime ` +
        `${row.downtimeMs?.toFixed(0) ?? '?'} ms, ${row.verified ? 'verified' : 'NOT VERIFIED'} ${row.note ?? ''}`,
    );
    if (!row.verified)
      throw new Error(`${row.name}: the guest found other bytes than it had written, or does not go on`);
  }

  #memoryOn(host: StageHost, vmId: string): string {
    return new VmRegistry(host.dataDir).imagePath(undefined, vmId, 'memory');
  }

  #serialOn(host: StageHost, vmId: string): string {
    return join(new VmRegistry(host.dataDir).runFolder(vmId), 'serial');
  }

  async #command(host: StageHost, name: string, args: readonly string[]): Promise<void> {
    const child = this.#stage.children.startDwcp(name, args, {}, host.prefix);
    if ((await child.ended) !== 0) throw new Error(`dwcp ${args.join(' ')} failed; see ${child.logFile}`);
  }

  /** The guest goes on counting behind where it was, and finds every piece that it looks at as it should be. */
  async #verify(serialFile: string, before: number): Promise<boolean> {
    await serialLine(serialFile, /^tick \d+/, 30_000);
    const first = ticksOf(serialFile).last;
    for (
      const deadline = Date.now() + 120_000;
      ticksOf(serialFile).last < first + CHECK_TICKS;
      await new Promise((resolve) => setTimeout(resolve, 200))
    )
      if (Date.now() > deadline) return false;
    const { bad, last } = ticksOf(serialFile);
    if (bad.length > 0) say(`  ${bad.slice(0, 3).join('; ')}`);
    return bad.length === 0 && last > before;
  }
}
