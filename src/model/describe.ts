/**
 * What the Temporal UI shows as a migration's current details: Markdown, for somebody who has a minute. What happens,
 * how far it is, what is wrong, what to press.
 */
import type { GuestProgress } from './guest';
import { GUEST_STATES } from './guest-states';
import type { MigrationProgress } from './migration';
import { PHASES } from './phases';
import { formatBitRate, formatBytes, formatDuration } from './units';

export function describeMigration(
  progress: MigrationProgress,
  mode: 'migrate' | 'warm' | 'plan',
  workflowId: string,
): string {
  const verbs = { migrate: 'Moving', warm: 'Warming the baseline of', plan: 'Planning the move of' };
  const lines = [
    `**${verbs[mode]} ${progress.vmId}: ${progress.sourceHost} → ${progress.destinationHost}**`,
    '',
    `Phase: **${PHASES[progress.phase].title}**${route(progress)}`,
  ];
  if (progress.parked) lines.push('', ...parkedLines(progress, workflowId));
  if (progress.cancelRequested)
    lines.push(
      '',
      progress.pastReturn
        ? 'A cancel was asked for behind the point of no return: the migration completes forward.'
        : 'A cancel was asked for: rolling back.',
    );
  if (progress.images.length > 0) lines.push('', ...progress.images.map(imageLine));
  const guest = progress.images.find((image) => image.guest)?.guest;
  if (guest) lines.push(`- ${guestText(guest)}`);
  if (progress.plan) {
    const { expectedLinkBytes, expectedSeconds, expectedSpeedup } = progress.plan;
    lines.push(
      '',
      `Plan: ${formatBytes(expectedLinkBytes)} in ${formatDuration(expectedSeconds * 1000)}, ` +
        `${expectedSpeedup.toFixed(1)} times as fast as the standard transfer.`,
    );
  }
  if (mode === 'migrate') {
    lines.push(
      '',
      progress.pastReturn
        ? 'Past the point of no return: the VM belongs to the destination.'
        : 'Cancel rolls back: the VM stays at the source, and what has arrived is kept as baseline.',
    );
  }
  return lines.join('\n');
}

/** Where a running guest is on its way, in one line. */
export function guestText({
  state,
  round,
  remainingBytes,
  dirtyBytesPerSecond,
  expectedDowntimeMs,
  throttle,
  writeLimitBytesPerSecond: limit,
}: GuestProgress): string {
  const { title, runsAt } = GUEST_STATES[state];
  const where = runsAt === 'nowhere' ? 'the guest stands still' : `the guest runs at the ${runsAt}`;
  if (state === 'disks' || runsAt !== 'source') return `${where}: ${title}`;
  const slowed =
    (throttle > 0.01 ? `, slowed down by ${(100 * throttle).toFixed(0)} %` : '') +
    (limit === undefined ? '' : `, its disk writes held to ${formatBitRate(limit)}`);
  const pause = expectedDowntimeMs > 0 ? `, pause expected ${formatDuration(expectedDowntimeMs)}` : '';
  return (
    `${where}: ${title}, round ${round + 1}, ${formatBytes(remainingBytes)} left, dirtied at ` +
    `${formatBitRate(dirtyBytesPerSecond)}${slowed}${pause}`
  );
}

function route(progress: MigrationProgress): string {
  const tier = progress.tier ? `, ${progress.tier} tier` : '';
  const paths = {
    dwcp: '',
    standard: ' by the standard transfer',
    fallback: ' by the standard transfer, after DWCP failed',
  };
  return `${paths[progress.path]}${tier}`;
}

function parkedLines({ parked, migrationId }: MigrationProgress, workflowId: string): string[] {
  if (!parked) return [];
  const { error, step } = parked;
  return [
    `### Waits for an operator`,
    `\`${error.code}\` in ${step}${error.side ? ` (${error.side})` : ''}: ${error.message}`,
    '',
    `To mend: ${error.hint ?? ''}`,
    '',
    `Then **Update → retry_step** here, or \`dwcp retry ${migrationId}\`. To give up: **Update → ` +
      `abort_migration**, or \`dwcp cancel ${migrationId}\`. Workflow: \`${workflowId}\`.`,
  ];
}

/** A list, since the UI sets the columns of a table without any space between them. */
function imageLine(image: MigrationProgress['images'][number]): string {
  const percent = ((100 * image.doneBytes) / image.totalBytes).toFixed(0);
  const sent = `${formatBytes(image.linkBytes)} sent`;
  if (image.doneBytes >= image.totalBytes)
    return `- **${image.imageId}**: all ${formatBytes(image.totalBytes)} done, ${sent}`;
  const pace = `${formatBitRate(image.bytesPerSecond)} on ${image.streams} stream${image.streams === 1 ? '' : 's'} at level ${image.level}`;
  return (
    `- **${image.imageId}**: ${percent} % of ${formatBytes(image.totalBytes)}, ${sent}, ${pace}, ` +
    `${formatDuration(image.etaMs ?? Infinity)} left`
  );
}
