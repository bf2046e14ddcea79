/** What a plan and a survey of a path say to whoever reads them on a terminal. */
import type { GuestForecast } from '../model/guest-forecast';
import type { LinkSurvey, SurveyResult } from '../model/link-survey';
import type { PlanResult } from '../model/plan';
import { formatBitRate, formatBytes, formatDuration } from '../model/units';
import { table } from './output';

/** Below it a receive window costs nothing worth an operator's time. */
const WINDOW_WORTH_ADVICE = 0.2;

function windowAdvice({ link, manyStreamsBytesPerSecond, windowLimitedShare }: LinkSurvey): string {
  if (windowLimitedShare === undefined) return 'the kernel does not tell';
  const share = `one stream waited for it ${(100 * windowLimitedShare).toFixed(0)} % of the time`;
  const wantedBytes = 2 * manyStreamsBytesPerSecond * (link.rttMs / 1000);
  return windowLimitedShare < WINDOW_WORTH_ADVICE
    ? share
    : `${share}: raise the third number of net.ipv4.tcp_rmem at the destination to ${formatBytes(wantedBytes)} or more`;
}

export function surveyText(survey: SurveyResult): string {
  const { link, jitterMs, streams, oneStreamBytesPerSecond, manyStreamsBytesPerSecond, deliveryBytesPerSecond, start } =
    survey;
  return table([
    ['round trip', `${link.rttMs.toFixed(1)} ms, ±${jitterMs.toFixed(1)} ms from one to the next`],
    [
      'loss',
      link.lossRatio === undefined
        ? 'the kernel does not tell'
        : `${(100 * link.lossRatio).toFixed(3)} % of segments sent again`,
    ],
    ['congestion control', link.congestionControl ?? 'unknown'],
    ['one stream', formatBitRate(oneStreamBytesPerSecond)],
    [
      `${streams} streams`,
      formatBitRate(manyStreamsBytesPerSecond) +
        (deliveryBytesPerSecond > 0 ? `, ${formatBitRate(deliveryBytesPerSecond)} by the kernel's own count` : ''),
    ],
    ['receive window', windowAdvice(survey)],
    ['keys agreed on by', survey.keyExchange ?? 'nobody: plain TCP'],
    [
      'a migration starts with',
      `${start.tier} tier, ${start.initialStreams} streams, level up to ${start.maxLevel} (${start.reason})`,
    ],
  ]);
}

function forecastLines({ basis, ...forecast }: GuestForecast): string[] {
  const between = (low: number, high: number): string => `${formatDuration(low)} to ${formatDuration(high)}`;
  const { seconds, secondsLow, secondsHigh, downtimeMs, downtimeMsLow, downtimeMsHigh, rounds, converges } = forecast;
  return [
    `guest: ${formatDuration(seconds * 1000)} (${between(secondsLow * 1000, secondsHigh * 1000)}), standing still for ` +
      `${formatDuration(downtimeMs)} (${between(downtimeMsLow, downtimeMsHigh)}) after ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`,
    ...(converges ? [] : ['guest: it writes too fast for the pause allowed; the move would wait for an operator']),
    ...basis.map((line) => `  ${line}`),
  ];
}

export function planText({ plan, link, start }: PlanResult): string {
  const rows = [['image', 'size', 'kind', 'zero', 'held there', 'to send']];
  for (const image of plan.images)
    rows.push([
      image.imageId,
      formatBytes(image.sizeBytes),
      image.kind,
      `${(100 * image.zeroShare).toFixed(0)} %`,
      `${(100 * image.heldShare).toFixed(0)} %`,
      formatBytes(image.expectedLinkBytes),
    ]);
  const loss = link.lossRatio === undefined ? 'loss not seen yet' : `${(100 * link.lossRatio).toFixed(3)} % sent again`;
  return [
    table(rows),
    `link: ${link.rttMs.toFixed(1)} ms, ${formatBitRate(link.bandwidthBytesPerSecond)}, ${loss}: ${start.tier} ` +
      `tier, ${start.initialStreams} streams, level up to ${start.maxLevel}`,
    `expected: ${formatBytes(plan.expectedLinkBytes)} in ${formatDuration(plan.expectedSeconds * 1000)}; standard ` +
      `transfer ${formatDuration(plan.standardSeconds * 1000)}: ${plan.expectedSpeedup.toFixed(1)} times faster`,
    ...(plan.forecast ? forecastLines(plan.forecast) : []),
  ].join('\n');
}
