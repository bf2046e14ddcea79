/**
 * An option's value as text: read from a flag, a variable or a file, and said in messages and documents. The table itself is
 * options.ts.
 */
import type { OptionSpec, OptionType } from './option-spec';
import { ownValue } from './own-value';
import { parseDurationMs, parseRateBytesPerSecond, parseSizeBytes } from './units';

const WRITTEN_BOOLEANS = {
  true: true,
  '1': true,
  yes: true,
  on: true,
  false: false,
  '0': false,
  no: false,
  off: false,
};

/** Reads one written value; the error text says what the option takes. */
export function parseOption(name: string, spec: OptionSpec, text: string): boolean | number | string {
  if (spec.type === 'text') return text;
  if (spec.type === 'boolean') {
    const known = ownValue(WRITTEN_BOOLEANS, text.toLowerCase());
    if (known === undefined) throw new RangeError(`${name} takes true or false, not "${text}"`);
    return known;
  }
  const parse =
    { bytes: parseSizeBytes, rate: parseRateBytesPerSecond, duration: parseDurationMs }[spec.type as string] ??
    parsePlainNumber;
  const value = parse(text);
  if (value === undefined) throw new RangeError(`${name} takes ${describe(spec)}, not "${text}"`);
  return checkRange(name, spec, value);
}

/** The parts of an option that takes several, separated by commas. */
export function listOf(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

function parsePlainNumber(text: string): number | undefined {
  return /^-?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : undefined;
}

function checkRange(name: string, spec: OptionSpec, value: number): number {
  const outside = (spec.min !== undefined && value < spec.min) || (spec.max !== undefined && value > spec.max);
  const broken = !Number.isFinite(value) || (spec.type === 'integer' && !Number.isInteger(value));
  if (outside || broken) throw new RangeError(`${name} takes ${describe(spec)}, not ${value}`);
  return value;
}

/** `an integer from 1 to 256`, `a rate such as 100MB/s from 0`: what a value may be, for messages and documents. */
export function describe(spec: OptionSpec): string {
  const kinds: Record<OptionType, string> = {
    boolean: 'true or false',
    integer: 'an integer',
    number: 'a number',
    text: 'text',
    bytes: 'a size such as 64MiB',
    rate: 'a rate such as 100MB/s or 800mbit',
    duration: 'a duration such as 30s',
  };
  const from = spec.min === undefined ? '' : ` from ${spec.min}`;
  const to = spec.max === undefined ? '' : ` to ${spec.max}`;
  return `${kinds[spec.type]}${from}${to}`;
}
