/**
 * The live view of a migration: one line per image with percent, rate, streams, level, ratio and time left, until it has
 * ended. On a terminal the lines stay in place; elsewhere a line is printed when something has changed.
 */
import type { MigrationStatus } from '../control/migration-status';
import type { Orchestrator } from '../control/orchestrator';
import { guestText } from '../model/describe';
import { DwcpError } from '../model/errors';
import { EXIT } from '../model/exit-codes';
import type { GuestResult } from '../model/guest';
import { consoleText } from '../model/guest-console';
import type { ImageProgress, ImageResult, MigrationResult } from '../model/migration';
import { PHASES } from '../model/phases';
import { formatBitRate, formatBytes, formatDuration } from '../model/units';
import { wait } from '../system/wait';
import { type Output, table } from './output';

const POLL_MS = 500;
const PLAIN_EVERY_MS = 2_000;

export function imageLine(image: ImageProgress): string {
  const percent = `${((100 * image.doneBytes) / image.totalBytes).toFixed(0).padStart(3)} %`;
  const ratio = image.linkBytes > 0 ? (image.doneBytes / image.linkBytes).toFixed(1) : '-';
  const left =
    image.doneBytes >= image.totalBytes ? 'done' : image.etaMs === undefined ? 'unknown' : formatDuration(image.etaMs);
  return (
    `${image.imageId.padEnd(10)} ${percent}  ${formatBitRate(image.bytesPerSecond).padStart(12)}  ` +
    `${String(image.streams).padStart(3)} streams  level ${String(image.level).padStart(2)}  ratio ` +
    `${ratio.padStart(6)}  left ${left}`
  );
}

/** What people see now: the phase, then a line an image; parked, the reason and the mend. */
export function statusLines(status: MigrationStatus): string[] {
  const { progress, live } = status;
  if (!progress) return [`${status.migrationId}: ${status.state}`];
  const newer = new Map(live.map((image) => [image.imageId, image]));
  const images = progress.images.map((image) => newer.get(image.imageId) ?? image);
  const fresh = live.filter((image) => !progress.images.some((known) => known.imageId === image.imageId));
  const head =
    `${progress.vmId}: ${progress.sourceHost} → ${progress.destinationHost}  ${PHASES[progress.phase].title}` +
    (progress.tier ? ` (${progress.tier})` : '');
  const parked = progress.parked;
  const waiting = parked
    ? [
        `  waits for an operator: ${parked.error.code}: ${parked.error.message}`,
        `  mend: ${parked.error.hint ?? ''}; then \`dwcp retry ${status.migrationId}\`, or \`dwcp cancel ` +
          `${status.migrationId}\` to give up`,
      ]
    : [];
  return [
    head,
    ...[...images, ...fresh].flatMap((image) => [
      `  ${imageLine(image)}`,
      ...(image.guest ? [`  ${guestText(image.guest)}`] : []),
    ]),
    ...waiting,
  ];
}

/** Why each image is packed at the level that it is. */
export function levelLines({ live }: MigrationStatus): string[] {
  return live.flatMap((image) =>
    image.levelReason === undefined ? [] : [`  ${image.imageId}: level ${image.level}: ${image.levelReason}`],
  );
}

export function resultText(result: MigrationResult): string {
  const rows = [['image', 'size', 'on the link', 'ratio', 'time', 'delta hits', 'streams', 'level', 'verified']];
  for (const image of result.images) {
    rows.push([
      image.imageId,
      formatBytes(image.totalBytes),
      formatBytes(image.linkBytes),
      image.ratio.toFixed(1),
      formatDuration(image.seconds * 1000),
      hitsText(image),
      String(image.streams),
      String(image.level),
      verifiedText(image),
    ]);
  }
  const by = {
    dwcp: 'by DWCP',
    standard: 'by the standard transfer',
    fallback: `by the standard transfer (${result.fallbackReason?.code ?? ''})`,
  }[result.path];
  return [
    table(rows),
    `${result.vmId} is on ${result.destinationHost}: ${formatBytes(result.totalBytes)} in ` +
      `${formatDuration(result.totalSeconds * 1000)} ${by}, ${result.speedup.toFixed(1)} times the standard transfer ` +
      '(estimated for this link)',
    ...(result.guest ? [guestResultText(result.guest)] : []),
    ...(result.consoles ?? []).map((console) => `console there: ${consoleText(console)}`),
    `goals: ${result.goals.speedup.reason}; ${result.goals.transferRate.reason}`,
  ].join('\n');
}

/** What was compared: the image's root on both sides, or nothing where QEMU itself has brought it. */
export function verifiedText({ verified }: Pick<ImageResult, 'verified'>): string {
  return verified ? 'by its root' : 'by QEMU alone';
}

function guestResultText({
  downtimeMs,
  pauses = 1,
  pausedMs = 0,
  rounds,
  reason,
  responds,
  throttle,
  writeLimitBytesPerSecond: limit,
}: GuestResult): string {
  const downtime = downtimeMs === undefined ? 'downtime not measured' : `downtime ${formatDuration(downtimeMs)}`;
  const paused = pauses > 1 ? `, paused ${pauses} times for ${formatDuration(pausedMs)} in all` : '';
  const slowed =
    (throttle > 0.01 ? `, slowed down by ${(100 * throttle).toFixed(0)} % at the end` : '') +
    (limit === undefined ? '' : `, its disk writes held to ${formatBitRate(limit)} until then`);
  return (
    `the guest ${responds ? 'runs there' : 'DOES NOT RESPOND there'}: ${downtime}${paused}, ${rounds} memory round` +
    `${rounds === 1 ? '' : 's'}${slowed}${reason ? ` (${reason})` : ''}`
  );
}

/**
 * Follows a migration to its end.
 * @param untilParked ends with the parked state instead of waiting for the operator
 * @returns its result; @throws what it failed with
 */
export async function follow(
  orchestrator: Orchestrator,
  migrationId: string,
  output: Output,
  { untilParked = false }: { readonly untilParked?: boolean } = {},
): Promise<MigrationResult> {
  let drawn = 0;
  let lastPlain = '';
  let lastPlainAt = 0;
  for (;;) {
    const status = await orchestrator.getMigrationStatus(migrationId);
    if (status.state === 'completed' && status.result) {
      clear(drawn);
      return status.result;
    }
    if (status.state !== 'running') {
      clear(drawn);
      throw status.error ?? new DwcpError('MIGRATION_FAILED', `Migration ${migrationId} ended as ${status.state}`);
    }
    const lines = statusLines(status);
    if (output.json) output.emit({ event: 'progress', ...status }, () => '');
    else if (process.stdout.isTTY) {
      clear(drawn);
      process.stdout.write(`${lines.join('\n')}\n`);
      drawn = lines.length;
    } else if (lines.join('\n') !== lastPlain && Date.now() - lastPlainAt > PLAIN_EVERY_MS) {
      lastPlain = lines.join('\n');
      lastPlainAt = Date.now();
      output.say(lastPlain);
    }
    if (untilParked && status.progress?.parked) {
      const { error } = status.progress.parked;
      process.exitCode = EXIT.parked;
      throw new DwcpError(error.code as DwcpError['code'], error.message, { hint: error.hint });
    }
    await wait(output.json ? 1000 : POLL_MS);
  }
}

function clear(lines: number): void {
  if (lines > 0 && process.stdout.isTTY) process.stdout.write(`\u001b[${lines}A\u001b[J`);
}

/** The delta hit rate; a dash where the destination had nothing that could have been hit. */
export function hitsText({ deltaHitRate, began, blocks }: ImageResult): string {
  const nothingHeld = began !== 'baseline' && blocks.unchanged + blocks.pages + blocks.runDelta + blocks.oldPages === 0;
  return nothingHeld ? '-' : `${(100 * deltaHitRate).toFixed(0)} %`;
}
