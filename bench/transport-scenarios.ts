/**
 * The links of `bench -- transport` and what runs on each (bench/README.md).
 */
import type { LinkSetting } from './wan-link';

export interface TransportScenario {
  readonly name: string;
  readonly link: LinkSetting;
  /** Of the tuner's runs, which end with a search behind them. */
  readonly seconds: number;
  /** Fixed numbers of streams to compare with. */
  readonly fixed: readonly number[];
  /** Streams of the many-stream peer. */
  readonly peerStreams: number;
}

function scenario(
  rate: string,
  rateBitsPerSecond: number,
  rtt: string,
  loss: string,
  cc: string,
  seconds: number,
  fixed: readonly number[],
  peerStreams = 64,
): TransportScenario {
  return {
    name: `${rate} ${rtt} ${loss} ${cc}`,
    link: { rate, rateBitsPerSecond, rtt, loss, cc },
    seconds,
    fixed,
    peerStreams,
  };
}

const FIXED = [4, 16, 64, 256];
/** Of all others: nothing of theirs changes after the first seconds. */
export const OTHER_SECONDS = 16;

export const TRANSPORT_SCENARIOS: readonly TransportScenario[] = [
  scenario('100mbit', 100e6, '50ms', '0.01%', 'cubic', 30, FIXED),
  scenario('100mbit', 100e6, '50ms', '0.1%', 'cubic', 30, FIXED),
  scenario('100mbit', 100e6, '50ms', '1%', 'cubic', 30, FIXED),
  scenario('100mbit', 100e6, '50ms', '0%', 'bbr', 30, [4, 64]),
  scenario('100mbit', 100e6, '50ms', '1%', 'bbr', 30, [4, 64]),
  scenario('300mbit', 300e6, '100ms', '0%', 'cubic', 60, [16, 64]),
  scenario('300mbit', 300e6, '100ms', '0.1%', 'cubic', 60, FIXED),
  scenario('300mbit', 300e6, '100ms', '1%', 'cubic', 60, FIXED, 128),
  scenario('300mbit', 300e6, '100ms', '1%', 'bbr', 45, [16, 64]),
  scenario('1gbit', 1e9, '100ms', '0.01%', 'cubic', 30, [64], 32),
];
