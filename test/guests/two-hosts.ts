/**
 * Two hosts on this machine as two hosts are: each with its own network, its own ports and its own files, a link between them, agents,
 * a control worker and a Temporal server. The destination's QEMU stands behind a script, and its faults come and go with an entry.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Stage, type StageHost } from '../../bench/stage';
import { makeLinuxGuest } from '../../src/cli/demo/linux-guest';
import { killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { MIB } from '../../src/model/units';
import { VmRegistry } from '../../src/store/vm-registry';
import { bootSector, countingSector } from './boot-sectors';
import { HostBox } from './host-box';
import { LINUX } from './linux';
import type { GuestShape, ShapePlaces } from './shape';

/** Its pass takes a fifth of a second, and a hundredth of a processor. */
export const PAGES = 256;
const PAGES_PER_TICK = 64;
const DISK_BYTES = 4 * MIB;
/** Of statfs(2). */
const RAMFS = 0x858458f6;
/** Networks that guests from elsewhere may use, at both. */
const NETWORKS = 'br-web,tap7';

export interface Ended {
  readonly code: number;
  readonly text: string;
}

export class TwoHosts {
  readonly stage: Stage;
  readonly source: HostBox;
  readonly destination: HostBox;
  readonly #parent: string;
  readonly #links: readonly string[];
  readonly #boot: Buffer;
  readonly #keys: Buffer;
  #linux = '';
  #turn = 0;
  /** Guests outlive agents, and would outlive a walk that is broken off. */
  readonly #atExit = (): void => {
    killGuestsNaming([this.#parent]);
    // A namespace is there for a while behind its last process, for its connections.
    for (const name of this.#links) spawnSync('ip', ['link', 'del', name], { stdio: 'ignore' });
  };

  static async start(say: (line: string) => void): Promise<TwoHosts> {
    const hosts = new TwoHosts(await HostBox.open(), await HostBox.open(), say);
    try {
      await hosts.stage.start();
      return hosts;
    } catch (error) {
      await hosts.stop();
      throw error;
    }
  }

  private constructor(source: HostBox, destination: HostBox, say: (line: string) => void) {
    this.source = source;
    this.destination = destination;
    this.#parent = mkdtempSync(join(tmpdir(), 'dwcp-guests-'));
    const { here: serverAddress, links } = joinNetworks(source, destination);
    this.#links = links;
    const programs = join(this.#parent, 'programs');
    this.stage = new Stage({
      ...{ name: 'two', parent: this.#parent, serverAddress },
      a: { address: '198.18.0.1', prefix: source.prefix },
      b: { address: '198.18.0.2', prefix: destination.prefix },
      agentArgs: ['--sweep-interval', '2s', '--worker-threads', '1', '--guest-networks', NETWORKS],
      bArgs: ['--qemu-folder', programs],
    });
    process.once('exit', this.#atExit);
    say(`two hosts below ${this.stage.folder}`);
    const { folder } = this.stage;
    for (const name of ['a', 'b', 'vms', 'common', 'boot']) mkdirSync(join(folder, name));
    const numbers = { pages: PAGES, pagesPerTick: PAGES_PER_TICK, idleTurns: 0, writesDisk: false };
    this.#boot = countingSector(join(folder, 'boot'), numbers);
    this.#keys = bootSector('keys', join(folder, 'boot'));
    source.run('mount', '-t', 'tmpfs', 'tmpfs', join(folder, 'b'));
    for (const name of ['a', 'vms']) destination.run('mount', '-t', 'tmpfs', 'tmpfs', join(folder, name));
    destination.programs(programs);
  }

  /** Folders of an entry, with what boots. */
  async places(shape: GuestShape, say: (line: string) => void): Promise<ShapePlaces> {
    const vmId = `g${(this.#turn += 1)}`;
    const [folder, common] = [join(this.stage.folder, 'vms', vmId), join(this.stage.folder, 'common', vmId)];
    for (const path of [folder, common]) mkdirSync(path);
    const disk = join(folder, 'disk.img');
    if (shape.guest === 'linux') copyFileSync(join(await this.#linuxGuest(say), 'disk.img'), disk);
    else this.#write(disk, shape.guest === 'keys' ? this.#keys : this.#boot);
    return { vmId, folder, common, disk, linux: this.#linux };
  }

  async dwcp(host: StageHost, ...args: readonly string[]): Promise<Ended> {
    const name = `dwcp-${args[1] ?? ''}-${(this.#turn += 1)}`;
    const words = args.includes('--') ? args.indexOf('--') : args.length;
    const all = [...args.slice(0, words), '--data-dir', host.dataDir, ...args.slice(words)];
    const child = this.stage.children.startDwcp(name, all, {}, host.prefix);
    return { code: await child.ended, text: readFileSync(child.logFile, 'utf8').trim() };
  }

  /** As this process sees what lies at a host. */
  seen(host: StageHost, path: string): string {
    return (host === this.stage.a ? this.source : this.destination).seen(path);
  }

  /** What of a VM's images a host has on its disk. */
  heldBytes(host: StageHost, vmId: string): number {
    const folder = this.seen(host, join(new VmRegistry(host.dataDir).imagesFolder, vmId));
    // There a file has no holes: whoever reads one fills it.
    if (!existsSync(folder) || statfsSync(folder).type === RAMFS) return 0;
    const files = execFileSync('find', [folder, '-type', 'f'], { encoding: 'utf8' }).split('\n');
    return files.reduce((sum, path) => sum + (path === '' ? 0 : statSync(path).blocks * 512), 0);
  }

  restore(): void {
    this.source.restore();
    this.destination.restore();
  }

  async stop(): Promise<void> {
    this.restore();
    try {
      await this.stage.stop();
    } finally {
      this.source.close();
      this.destination.close();
      this.#atExit();
      process.off('exit', this.#atExit);
      rmSync(this.#parent, { recursive: true, force: true });
    }
  }

  async #linuxGuest(say: (line: string) => void): Promise<string> {
    if (this.#linux === '') {
      const folder = join(this.stage.folder, 'linux');
      await makeLinuxGuest(folder, LINUX, this.stage.children, say);
      this.#linux = folder;
    }
    return this.#linux;
  }

  #write(disk: string, sector: Buffer): void {
    const bytes = Buffer.alloc(DISK_BYTES);
    sector.copy(bytes);
    randomBytes(MIB).copy(bytes, MIB);
    writeFileSync(disk, bytes);
  }
}

/** Each reaches this machine, and the other without a way through it. @returns where both reach what listens here, and its own ends */
function joinNetworks(
  source: HostBox,
  destination: HostBox,
): { readonly here: string; readonly links: readonly string[] } {
  const links: string[] = [];
  const [net, name] = [randomInt(20, 250), randomBytes(3).toString('hex')];
  const here = `198.19.${net}.1`;
  const ip = (...args: readonly string[]): unknown => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  for (const [box, host] of [
    [source, 11],
    [destination, 12],
  ] as const) {
    const [veth, there] = [`dwcp-${name}-${host}`, `198.19.${net}.${host}`];
    links.push(veth);
    ip('link', 'add', veth, 'type', 'veth', 'peer', 'name', 'mgmt', 'netns', String(box.pid));
    box.run('ip', 'addr', 'add', `${there}/24`, 'dev', 'mgmt');
    box.run('ip', 'link', 'set', 'mgmt', 'up');
    ip('link', 'set', veth, 'up');
    ip('addr', 'add', `${here}/32`, 'dev', veth);
    ip('route', 'add', `${there}/32`, 'dev', veth, 'src', here);
  }
  source.run('ip', 'link', 'add', 'data', 'type', 'veth', 'peer', 'name', 'data', 'netns', String(destination.pid));
  for (const [box, address] of [
    [source, '198.18.0.1/24'],
    [destination, '198.18.0.2/24'],
  ] as const) {
    box.run('ip', 'addr', 'add', address, 'dev', 'data');
    box.run('ip', 'link', 'set', 'data', 'up');
  }
  return { here, links };
}
