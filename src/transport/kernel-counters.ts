/**
 * What the kernel says of TCP without privileges: which congestion control a new socket gets, and the share of segments
 * sent again, from /proc/net/snmp. Counts the whole network namespace, so it is a coarse measure; undefined where
 * the kernel does not tell.
 */
import { readFile } from 'node:fs/promises';

export async function congestionControl(): Promise<string | undefined> {
  const name = await readFile('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').catch(() => '');
  return name.trim() || undefined;
}

interface SegmentCounts {
  readonly sent: number;
  readonly again: number;
}

async function segmentCounts(): Promise<SegmentCounts | undefined> {
  const text = await readFile('/proc/net/snmp', 'utf8').catch(() => '');
  const [names = [], values = []] = text.split('\n').filter((line) => line.startsWith('Tcp:')).map((line) => line.split(/\s+/));
  const value = (name: string): number => Number(values[names.indexOf(name)]);
  const sent = value('OutSegs');
  const again = value('RetransSegs');
  return Number.isFinite(sent) && Number.isFinite(again) ? { sent, again } : undefined;
}

const ENOUGH_SEGMENTS = 200;

/** The share since it was made, or since enough segments went out to tell. */
export class RetransmitMeter {
  readonly #first = segmentCounts();

  async ratio(): Promise<number | undefined> {
    const [first, now] = await Promise.all([this.#first, segmentCounts()]);
    if (!first || !now || now.sent - first.sent < ENOUGH_SEGMENTS) return undefined;
    return (now.again - first.again) / (now.sent - first.sent);
  }
}
