/**
 * What a bench gives: a table for people, with --json a last line that is one object, and the same with date and host in
 * bench/results/NAME.json, where it is a whole one.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, hostname, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { table } from '../src/cli/output';
import { formatBytes } from '../src/model/units';

export interface Row {
  readonly name: string;
  readonly seconds?: number;
  readonly linkBytes?: number;
  readonly rawBytes?: number;
  readonly ratio?: number;
  /** Of the link's rate, from second 5 of the transfer on. */
  readonly utilisation?: number;
  /** Share of the link's rate in the first five seconds of the transfer. */
  readonly firstSeconds?: number;
  readonly streams?: number;
  readonly bytesPerSecond?: number;
  readonly peakRssBytes?: number;
  /** From the source's STOP event to the destination's RESUME event. */
  readonly downtimeMs?: number;
  readonly rounds?: number;
  readonly cpuSecondsPerGb?: number;
  readonly eventLoopP99Ms?: number;
  readonly verified?: boolean;
  readonly note?: string;
}

/** What goes on, for people; the rows alone go to stdout. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** A part of a measurement is shown and not kept. */
const PARTIAL = ['--small', '--no-peers', '--dwcp-only', '--peers-only', '--memory-only', '--disk-only', '--only'].some(
  (flag) => process.argv.includes(flag),
);
const ROOT = join(__dirname, '..', '..');

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: ROOT, encoding: 'utf8' }).trim();
  } catch {
    return 'unknown';
  }
}

function cells(row: Row): string[] {
  const shown = (value: number | undefined, format: (value: number) => string): string =>
    value === undefined ? '' : format(value);
  return [
    row.name,
    shown(row.seconds, (value) => `${value.toFixed(1)} s`),
    shown(row.linkBytes, (value) => `${(value / 1e6).toFixed(1)} MB`),
    shown(row.rawBytes, (value) => `${(value / 1e6).toFixed(0)} MB`),
    shown(row.ratio, (value) => value.toFixed(2)),
    shown(row.utilisation, (value) => `${(100 * value).toFixed(1)} %`),
    shown(row.firstSeconds, (value) => `${(100 * value).toFixed(1)} %`),
    shown(row.streams, String),
    shown(row.bytesPerSecond, (value) => `${(value / 1e6).toFixed(0)} MB/s`),
    shown(row.cpuSecondsPerGb, (value) => `${value.toFixed(2)} s/GB`),
    shown(row.peakRssBytes, formatBytes),
    shown(row.downtimeMs, (value) => `${value.toFixed(0)} ms`),
    shown(row.rounds, String),
    row.verified === undefined ? '' : row.verified ? 'yes' : 'NO',
    row.note ?? '',
  ];
}

/** Columns that no row fills are left out. */
export function rowsTable(rows: readonly Row[]): string {
  const all = [
    [
      'row',
      'time',
      'on the link',
      'image',
      'ratio',
      'utilisation',
      'first 5 s',
      'streams',
      'rate',
      'CPU',
      'peak RSS',
      'downtime',
      'rounds',
      'verified',
      '',
    ],
    ...rows.map(cells),
  ];
  const used = (all[0] ?? []).map((_, column) => column === 0 || all.slice(1).some((row) => row[column] !== ''));
  return table(all.map((row) => row.filter((_, column) => used[column])));
}

export function report(bench: string, rows: readonly Row[], json: boolean, setting: Record<string, unknown>): void {
  const result = { bench, rows };
  const host = {
    name: hostname(),
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    load: loadavg()[0],
  };
  mkdirSync(join(ROOT, 'bench', 'results'), { recursive: true });
  if (!PARTIAL)
    writeFileSync(
      join(ROOT, 'bench', 'results', `${bench}.json`),
      `${JSON.stringify({ ...result, setting, date: new Date().toISOString(), commit: commit(), host }, null, 1)}\n`,
    );
  process.stdout.write(`${rowsTable(rows)}\n`);
  if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
}
