/**
 * Quantities as people write them and as the code carries them: bytes, rates in bytes a second, durations in
 * milliseconds. Parsing and formatting only; which option takes which quantity is said in options.ts.
 */
import { ownValue } from './own-value';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const MEGABYTE = 1_000_000;

const BYTE_SUFFIXES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  t: 1e12,
  tb: 1e12,
  kib: KIB,
  mib: MIB,
  gib: GIB,
  tib: 1024 * GIB,
};

const BIT_SUFFIXES: Readonly<Record<string, number>> = {
  bit: 1,
  kbit: 1e3,
  mbit: 1e6,
  gbit: 1e9,
  bps: 1,
  kbps: 1e3,
  mbps: 1e6,
  gbps: 1e9,
};

const DURATION_SUFFIXES: Readonly<Record<string, number>> = {
  '': 1,
  ms: 1,
  s: 1e3,
  m: 60e3,
  min: 60e3,
  h: 3600e3,
  d: 86_400e3,
};

function split(text: string): { value: number; suffix: string } | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  if (!match) return undefined;
  return { value: Number(match[1]), suffix: (match[2] ?? '').toLowerCase() };
}

/** `64MiB`, `1.5 GB`, `4096` to bytes; undefined when the text is not a size. */
export function parseSizeBytes(text: string): number | undefined {
  const parts = split(text);
  const factor = parts && ownValue(BYTE_SUFFIXES, parts.suffix);
  return parts && factor !== undefined ? Math.round(parts.value * factor) : undefined;
}

/** `100MB/s`, `20 GB/min`, `800mbit` to bytes a second (0 means no limit); undefined when the text is not a rate. */
export function parseRateBytesPerSecond(text: string): number | undefined {
  const [amount = '', per = 's', extra] = text.trim().toLowerCase().split('/');
  const perSeconds = ownValue({ s: 1, sec: 1, min: 60, h: 3600 }, per.trim());
  if (extra !== undefined || perSeconds === undefined) return undefined;
  const parts = split(amount);
  if (!parts) return undefined;
  const bits = ownValue(BIT_SUFFIXES, parts.suffix);
  const factor = bits !== undefined ? bits / 8 : ownValue(BYTE_SUFFIXES, parts.suffix);
  return factor === undefined ? undefined : (parts.value * factor) / perSeconds;
}

/** `30s`, `250ms`, `2h`, `30000` to milliseconds; undefined when the text is not a duration. */
export function parseDurationMs(text: string): number | undefined {
  const parts = split(text);
  const factor = parts && ownValue(DURATION_SUFFIXES, parts.suffix);
  return parts && factor !== undefined ? parts.value * factor : undefined;
}

function withUnit(value: number, step: number, units: readonly string[]): string {
  let scaled = value;
  let index = 0;
  while (Math.abs(scaled) >= step && index < units.length - 1) {
    scaled /= step;
    index += 1;
  }
  const digits = index === 0 || scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${units[index] ?? ''}`;
}

/** Bytes for people, in binary units: `512 MiB`. */
export function formatBytes(bytes: number): string {
  return withUnit(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** A rate for people, in decimal units as links are sold: `94.2 Mbit/s`. */
export function formatBitRate(bytesPerSecond: number): string {
  return withUnit(bytesPerSecond * 8, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s']);
}

/** A duration for people: `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms)) return 'unknown';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
