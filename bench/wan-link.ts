/**
 * The emulated wide-area link of tools/wan: two namespaces, and the bytes that cross between them, read where they cross.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { whichTool } from '../src/cli/demo/tools';

const WAN = join(__dirname, '..', '..', 'tools', 'wan', 'wan');

export interface LinkSample {
  readonly atMs: number;
  readonly bytes: number;
}

export interface LinkSetting {
  readonly rate: string;
  readonly rateBitsPerSecond: number;
  readonly rtt: string;
  readonly loss: string;
  readonly cc: string;
}

/** Why the link cannot be had here; undefined where it can. */
export function wanRefusal(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root: run it as root';
  const missing = ['ip', 'cc'].filter((tool) => whichTool(tool) === undefined);
  return missing.length > 0 ? `${missing.join(' and ')} missing: apt-get install -y iproute2 build-essential` : undefined;
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
    const { rate, rtt, loss, cc } = this.setting;
    execFileSync(WAN, ['up', this.name, '--rate', rate, '--rtt', rtt, '--loss', loss, '--cc', cc], { stdio: ['ignore', 'inherit', 'inherit'] });
  }

  down(): void {
    try {
      execFileSync(WAN, ['down', this.name], { stdio: 'ignore' });
    } catch {
      // It was not up.
    }
  }

  /** Bytes that have crossed so far, both ways, IP headers included. */
  bytes(): number {
    const text = execFileSync('ip', ['-n', `wan-${this.name}-a`, '-s', '-j', 'link', 'show', 'dev', 'wan-0'], { encoding: 'utf8' });
    const [{ stats64 } = { stats64: undefined }] = JSON.parse(text) as { stats64: { rx: { bytes: number }; tx: { bytes: number } } | undefined }[];
    return (stats64?.rx.bytes ?? 0) + (stats64?.tx.bytes ?? 0);
  }

  startSampling(): void {
    this.#samples = [{ atMs: performance.now(), bytes: this.bytes() }];
    this.#timer = setInterval(() => this.#samples.push({ atMs: performance.now(), bytes: this.bytes() }), 250);
  }

  /**
   * @returns bytes that crossed, and the link's utilisation from the fifth second on after the transfer itself began (the
   * first quarter second with more than a tenth of the rate) up to its end (the last such quarter)
   */
  stopSampling(): { linkBytes: number; utilisation: number | undefined } {
    clearInterval(this.#timer);
    const samples = [...this.#samples, { atMs: performance.now(), bytes: this.bytes() }];
    const linkBytes = (samples.at(-1)?.bytes ?? 0) - (samples[0]?.bytes ?? 0);
    const rateBytes = this.setting.rateBitsPerSecond / 8;
    const busy = samples.slice(1).map((sample, index) => ({ sample, before: samples[index] ?? sample })).filter(({ sample, before }) => (sample.bytes - before.bytes) / ((sample.atMs - before.atMs) / 1000) > rateBytes / 10);
    const begin = busy[0]?.before;
    const end = busy.at(-1)?.sample;
    const from = begin && samples.find((sample) => sample.atMs >= begin.atMs + 5000);
    if (!from || !end || end.atMs - from.atMs < 1000) return { linkBytes, utilisation: undefined };
    return { linkBytes, utilisation: (end.bytes - from.bytes) / (rateBytes * ((end.atMs - from.atMs) / 1000)) };
  }
}
