/**
 * Paths for the tuner's simulator. None of those on which its constants were chosen (transport.md, section 3.6): other speeds,
 * round trips, losses, and changes at other times.
 */
import type { Scenario } from './tuner-simulator';

const always = (value: number) => (): number => value;
const mbit = (value: number): number => (value * 1e6) / 8;
const WINDOW_BYTES = 1.5 * 1024 * 1024;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'clean 1 Gbit/s, 20 ms',
    seconds: 180,
    rttMs: 20,
    capacityBytesPerSecond: always(mbit(1000)),
    loss: always(0),
  },
  {
    name: 'loss 0.05 %, 500 Mbit/s, 80 ms',
    seconds: 180,
    rttMs: 80,
    capacityBytesPerSecond: always(mbit(500)),
    loss: always(0.0005),
  },
  {
    name: 'loss 1 %, 100 Mbit/s, 50 ms',
    seconds: 180,
    rttMs: 50,
    capacityBytesPerSecond: always(mbit(100)),
    loss: always(0.01),
  },
  {
    name: 'loss 0.3 %, 200 Mbit/s, 150 ms',
    seconds: 180,
    rttMs: 150,
    capacityBytesPerSecond: always(mbit(200)),
    loss: always(0.003),
  },
  {
    name: 'windows of 1.5 MiB, 1 Gbit/s, 200 ms',
    seconds: 180,
    rttMs: 200,
    capacityBytesPerSecond: always(mbit(1000)),
    loss: always(0),
    windowBytes: WINDOW_BYTES,
  },
  {
    name: 'bbr, loss 0.5 %, 400 Mbit/s, 60 ms',
    seconds: 180,
    rttMs: 60,
    capacityBytesPerSecond: always(mbit(400)),
    loss: always(0.005),
    bbr: true,
  },
  {
    name: 'a host that is slower from 48 streams on',
    seconds: 180,
    rttMs: 40,
    capacityBytesPerSecond: always(mbit(800)),
    loss: always(0.001),
    hostShare: (streams) => (streams <= 48 ? 1 : 48 / streams),
  },
  {
    name: 'thirty streams of others',
    seconds: 180,
    rttMs: 70,
    capacityBytesPerSecond: always(mbit(300)),
    loss: always(0),
    competingStreams: 30,
  },
  {
    name: 'capacity 400, 150, 400 Mbit/s',
    seconds: 240,
    rttMs: 60,
    capacityBytesPerSecond: (at) => mbit(at > 70 && at < 150 ? 150 : 400),
    loss: always(0.0008),
  },
  {
    name: 'loss rises from 0.01 to 0.5 %',
    seconds: 240,
    rttMs: 90,
    capacityBytesPerSecond: always(mbit(200)),
    loss: (at) => (at < 90 ? 0.0001 : 0.005),
  },
  {
    name: 'a source that is idle half of the time',
    seconds: 240,
    rttMs: 60,
    capacityBytesPerSecond: always(mbit(300)),
    loss: always(0.002),
    sourceIdle: (at) => at % 8 < 4,
  },
];
