/**
 * A bandwidth limit by the hour: `08:00-18:00 20MB/s, 22:00-06:00 0`. Times are the host's own; an entry may run over
 * midnight; of two that overlap the first counts; where none does, the plain limit holds. Pure.
 */
import { parseRateBytesPerSecond } from './units';

export interface ScheduleEntry {
  /** Minutes of the day. */
  readonly from: number;
  readonly to: number;
  /** 0 is no limit. */
  readonly bytesPerSecond: number;
}

const ENTRY = /^(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s+(\S.*)$/;

/** @throws RangeError that says which entry cannot be read, and what one looks like */
export function parseBandwidthSchedule(text: string): readonly ScheduleEntry[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parseEntry);
}

function parseEntry(text: string): ScheduleEntry {
  const [, fromHour, fromMinute, toHour, toMinute, rate = ''] = ENTRY.exec(text) ?? [];
  const from = minutesOf(fromHour, fromMinute);
  const to = minutesOf(toHour, toMinute);
  const bytesPerSecond = parseRateBytesPerSecond(rate);
  if (from === undefined || to === undefined || from === to || bytesPerSecond === undefined)
    throw new RangeError(
      `bandwidthSchedule takes entries such as "08:00-18:00 20MB/s", separated by commas, not "${text}"`,
    );
  return { from, to, bytesPerSecond };
}

function minutesOf(hour: string | undefined, minute: string | undefined): number | undefined {
  const [hours, minutes] = [Number(hour), Number(minute)];
  const valid =
    Number.isInteger(hours) &&
    Number.isInteger(minutes) &&
    minutes < 60 &&
    (hours < 24 || (hours === 24 && minutes === 0));
  return valid ? hours * 60 + minutes : undefined;
}

/** The limit that holds at a minute of the day. @param otherwise where no entry does */
export function limitAt(schedule: readonly ScheduleEntry[], minuteOfDay: number, otherwise: number): number {
  const holds = ({ from, to }: ScheduleEntry): boolean =>
    from < to ? minuteOfDay >= from && minuteOfDay < to : minuteOfDay >= from || minuteOfDay < to;
  return schedule.find(holds)?.bytesPerSecond ?? otherwise;
}
