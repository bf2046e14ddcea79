/**
 * What the anchors have in common: the links they are tried on, a timetable of what changes, and what is read off a link's rates.
 */
import type { Children } from '../src/cli/demo/children';
import type { Row } from './report';
import type { SendLine } from './transport-ends';
import { type LinkRate, type LinkSetting, WanLink } from './wan-link';

export const WIDE: LinkSetting = { rate: '300mbit', rateBitsPerSecond: 300e6, rtt: '100ms', loss: '0.1%', cc: 'cubic' };
export const NARROW: LinkSetting = {
  rate: '100mbit',
  rateBitsPerSecond: 100e6,
  rtt: '50ms',
  loss: '0.01%',
  cc: 'cubic',
};

export interface Lab {
  readonly children: Children;
  readonly folder: string;
  readonly image: string;
}

export type Anchor = (lab: Lab) => Promise<Row[]>;

export const pause = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** With a link of its own, up for as long as `run` takes. */
export async function onLink<T>(setting: LinkSetting, run: (link: WanLink) => Promise<T>): Promise<T> {
  const link = new WanLink('bench', setting);
  link.up();
  try {
    return await run(link);
  } finally {
    link.down();
  }
}

/** Mean rate of a stretch, as a share of what was possible there. */
export function shareOf(series: readonly LinkRate[], from: number, to: number, bitsPerSecond: number): number {
  const within = series.filter(({ atSeconds }) => atSeconds > from && atSeconds <= to);
  return within.reduce((sum, rate) => sum + rate.bitsPerSecond, 0) / Math.max(1, within.length) / bitsPerSecond;
}

/** Runs steps one after the other, each after its seconds. @returns when each was taken, by performance.now */
export function timetable(...steps: readonly (readonly [number, () => void])[]): {
  readonly run: () => Promise<void>;
  readonly takenAtMs: number[];
} {
  const takenAtMs: number[] = [];
  const run = async (): Promise<void> => {
    for (const [seconds, step] of steps) {
      await pause(seconds);
      step();
      takenAtMs.push(performance.now());
    }
  };
  return { run, takenAtMs };
}

/** Seconds from `from` until three seconds in a row reach a share of a rate. */
export function secondsUntil(series: readonly LinkRate[], from: number, share: number, bitsPerSecond: number): number {
  for (let second = from; second < (series.at(-1)?.atSeconds ?? 0) - 3; second += 0.25)
    if (shareOf(series, second, second + 3, bitsPerSecond) >= share) return second - from;
  return Infinity;
}

/** Bits a second of what was sent between two reports. */
export function rateBetween(before: SendLine | undefined, after: SendLine | undefined): number {
  return before && after ? (8 * (after.linkBytes - before.linkBytes)) / ((after.atMs - before.atMs) / 1000) : 0;
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
