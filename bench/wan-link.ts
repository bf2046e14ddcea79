/**
 * The emulated wide-area link of tools/wan: two namespaces, and the bytes that cross between them, read where they cross.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { whichTool } from '../src/cli/demo/tools';

const WAN = join(__dirname, '..', '..', 'tools', 'wan', 'wan');

/** Bytes that have arrived so far at either end, IP headers included: what the link dropped has not crossed it. */
interface Crossed {
  readonly atA: number;
  readonly atB: number;
}

interface LinkSample extends Crossed {
  readonly atMs: number;
}

/** What crossed in one interval. */
export interface LinkRate {
  readonly atSeconds: number;
  readonly bitsPerSecond: number;
}

export interface LinkSetting {
  readonly rate: string;
  readonly rateBitsPerSecond: number;
  readonly rtt: string;
  readonly loss: string;
  readonly cc: string;
  /** Rates of further paths between the two hosts, all else as on the first. */
  readonly further?: readonly string[];
}

/** Why the link cannot be had here; undefined where it can. */
export function wanRefusal(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root: run it as root';
  const missing = ['ip', 'cc'].filter((tool) => whichTool(tool) === undefined);
  return missing.length > 0
    ? `${missing.join(' and ')} missing: apt-get install -y iproute2 build-essential`
    : undefined;
}

export class WanLink {
  readonly name: string;
  readonly setting: LinkSetting;
  readonly a = { address: '198.18.0.1', prefix: [] as string[] };
  readonly b = { address: '198.18.0.2', prefix: [] as string[] };
  /** Where a Temporal server is reached from both hosts, beside the link. */
  readonly management = '198.19.0.1';
  #samples: LinkSample[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(name: string, setting: LinkSetting) {
    this.name = name;
    this.setting = setting;
    this.a.prefix = ['ip', 'netns', 'exec', `wan-${name}-a`];
    this.b.prefix = ['ip', 'netns', 'exec', `wan-${name}-b`];
  }

  up(): void {
    this.down();
    const { rate, rtt, loss, cc, further = [] } = this.setting;
    execFileSync(
      WAN,
      [
        'up',
        this.name,
        '--paths',
        String(1 + further.length),
        '--rate',
        rate,
        '--rtt',
        rtt,
        '--loss',
        loss,
        '--cc',
        cc,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    for (const [index, other] of further.entries()) this.set(String(index + 1), '--rate', other);
  }

  down(): void {
    try {
      execFileSync(WAN, ['down', this.name], { stdio: 'ignore' });
    } catch {
      // It was not up.
    }
  }

  #crossed(): Crossed {
    const received = (side: string): number => {
      const text = execFileSync('ip', ['-n', `wan-${this.name}-${side}`, '-s', '-j', 'link', 'show'], {
        encoding: 'utf8',
      });
      const devices = JSON.parse(text) as { ifname: string; stats64?: { rx: { bytes: number } } }[];
      return devices
        .filter(({ ifname }) => ifname.startsWith('wan-'))
        .reduce((sum, { stats64 }) => sum + (stats64?.rx.bytes ?? 0), 0);
    };
    return { atA: received('a'), atB: received('b') };
  }

  /** Bytes that have crossed since sampling began. */
  get crossedBytes(): number {
    const [first, now] = [this.#samples[0], this.#crossed()];
    return first ? now.atA - first.atA + now.atB - first.atB : 0;
  }

  /** Nothing crosses until mend(). */
  cut(): void {
    execFileSync(WAN, ['set', this.name, '--cut'], { stdio: 'ignore' });
  }

  mend(): void {
    execFileSync(WAN, ['set', this.name, '--mend'], { stdio: 'ignore' });
  }

  /** Changes the link, or the path of that number, while it is up: `--rate 100mbit`, `1 --cut`. */
  set(...args: readonly string[]): void {
    execFileSync(WAN, ['set', this.name, ...args], { stdio: 'ignore' });
  }

  startSampling(): void {
    const sample = (): LinkSample => ({ atMs: performance.now(), ...this.#crossed() });
    this.#samples = [sample()];
    this.#timer = setInterval(() => this.#samples.push(sample()), 250);
  }

  /**
   * @returns bytes that crossed, both ways; and of the busier way the utilisation from the fifth second on after the transfer
   * itself began (the first sample with more than a tenth of the rate) up to its end (the last with more than next to
   * nothing), the share of the rate in the five seconds before, what crossed in each interval, and when it began
   * (performance.now)
   */
  stopSampling(): {
    linkBytes: number;
    utilisation: number | undefined;
    firstSeconds: number | undefined;
    series: LinkRate[];
    begunAtMs: number;
  } {
    clearInterval(this.#timer);
    const samples = [...this.#samples, { atMs: performance.now(), ...this.#crossed() }];
    const [first, last] = [samples[0], samples.at(-1)];
    if (!first || !last)
      return { linkBytes: 0, utilisation: undefined, firstSeconds: undefined, series: [], begunAtMs: 0 };
    const [atA, atB] = [last.atA - first.atA, last.atB - first.atB];
    const way = atB >= atA ? 'atB' : 'atA';
    const rateBytes = this.setting.rateBitsPerSecond / 8;
    const share = (before: LinkSample, after: LinkSample): number =>
      (after[way] - before[way]) / (rateBytes * ((after.atMs - before.atMs) / 1000));
    const intervals = samples.slice(1).map((after, index) => ({ after, before: samples[index] ?? after }));
    const above = (least: number): typeof intervals =>
      intervals.filter(({ before, after }) => share(before, after) > least);
    // Measuring a path and agreeing on what to send is no transfer yet; a slow one goes on below what its first burst took.
    const begin = (above(0.1)[0] ?? above(0.003)[0])?.before;
    const end = above(0.003).at(-1)?.after;
    const from = begin && samples.find((sample) => sample.atMs >= begin.atMs + 5000);
    const measurable = from && end && end.atMs - from.atMs >= 1000;
    const series = intervals.map(({ before, after }) => ({
      atSeconds: (after.atMs - (begin ?? first).atMs) / 1000,
      bitsPerSecond: this.setting.rateBitsPerSecond * share(before, after),
    }));
    return {
      linkBytes: atA + atB,
      utilisation: measurable ? share(from, end) : undefined,
      firstSeconds: begin && from ? share(begin, from) : undefined,
      series,
      begunAtMs: (begin ?? first).atMs,
    };
  }
}
