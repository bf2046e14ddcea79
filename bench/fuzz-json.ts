/**
 * JSON that was valid, made wrong: fields dropped, doubled, renamed, of another type, at the edges of their numbers, very long, very deep,
 * with the names that every object has; and text that is no JSON or no UTF-8. Values come as bytes, since some cannot be written otherwise.
 */
import { mutateBytes } from './fuzz-bytes';
import type { Draw } from './fuzz-draw';

const NAMES = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'method', 'ok', 'error', 'length', '', '0'];
const TEXTS = [
  ...['', ' ', '.', '..', '../../etc/passwd', '/dev/zero', 'a/b', 'trust', 'nul\u0000', '\ud800', '\u2028', '‮'],
  ...['x'.repeat(300), '\u0001'.repeat(1200), 'ä'.repeat(2000), '0'.repeat(64), 'f'.repeat(64), '-1', '1e9', 'null'],
];
/** Stands for a byte that is no UTF-8: read, each becomes a character of three bytes. */
const NO_UTF8 = '\ue000';
const NO_UTF8_BYTES = Buffer.from(NO_UTF8);
/** Just below what a frame may hold. */
const LONG = 62 * 1024;

function textOf(draw: Draw): string {
  if (draw.oneIn(6)) return NO_UTF8.repeat(draw.pick([1, 300, 1300, 1900, 3800]));
  if (!draw.oneIn(40)) return draw.pick(TEXTS);
  return draw.pick(['a', '€', '\u0002', '"']).repeat(1 + draw.below(LONG / 6));
}

function deep(draw: Draw): unknown {
  const levels = draw.pick([10, 1000, 5000, LONG / 2 - 100]);
  const [open, close] = draw.oneIn(2) ? ['[', ']'] : ['{"a":', '}'];
  const times = Math.min(levels, Math.floor(LONG / (open.length + close.length)));
  return new Raw(`${open.repeat(times)}${open === '[' ? '' : '0'}${close.repeat(times)}`);
}

/** Text that stands in the JSON as it is. */
class Raw {
  constructor(readonly text: string) {}
}

function someValue(draw: Draw): unknown {
  switch (draw.below(16)) {
    case 0:
      return draw.edge();
    case 1:
      return -draw.edge();
    case 2:
      return draw.edge() + 0.5;
    case 3:
      return null;
    case 4:
      return draw.oneIn(2);
    case 5:
      return [];
    case 6:
      return {};
    case 7:
      return draw.oneIn(30) ? deep(draw) : [[[[]]]];
    case 8:
      return draw.oneIn(30) ? Array.from({ length: draw.below(LONG / 2) }, () => 0) : [0, 1, '2'];
    case 9:
      return { [draw.pick(NAMES)]: draw.edge() };
    case 10:
      return new Raw(draw.pick(['1e400', '-0', '1E-400', '123456789012345678901234567890', 'NaN', '01', "'a'", '']));
    default:
      return textOf(draw);
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !(value instanceof Raw);
}

/** One change somewhere in it. */
function changed(value: unknown, draw: Draw): unknown {
  if (!isObject(value) || draw.oneIn(8)) return someValue(draw);
  if (Array.isArray(value)) {
    const list: unknown[] = [...(value as unknown[])];
    const at = draw.below(list.length);
    const what = draw.below(5);
    if (list.length === 0 || what === 0) list.splice(at, 0, someValue(draw));
    else if (what === 1) list.splice(at, 1);
    else if (what === 2) return Array.from({ length: draw.pick([2, 17, 65, 1025]) }, () => list[at]);
    else list[at] = changed(list[at], draw);
    return list;
  }
  const entries: [string, unknown][] = Object.entries(value);
  const at = draw.below(entries.length);
  const [name, inner] = entries[at] ?? ['', 0];
  const what = draw.below(7);
  if (entries.length === 0 || what === 0)
    entries.push([draw.oneIn(2) ? draw.pick(NAMES) : textOf(draw), someValue(draw)]);
  else if (what === 1) entries.splice(at, 1);
  else if (what === 2) entries[at] = [draw.oneIn(2) ? draw.pick(NAMES) : textOf(draw), inner];
  else if (what === 3) entries.push([name, someValue(draw)]);
  else entries[at] = [name, changed(inner, draw)];
  return new Entries(entries);
}

/** An object whose names may stand in it twice. */
class Entries {
  constructor(readonly entries: readonly (readonly [string, unknown])[]) {}
}

function written(value: unknown): string {
  if (value instanceof Raw) return value.text;
  if (value instanceof Entries)
    return `{${value.entries.map(([name, each]) => `${JSON.stringify(name)}:${written(each)}`).join(',')}}`;
  if (Array.isArray(value)) return `[${value.map(written).join(',')}]`;
  if (isObject(value)) return written(new Entries(Object.entries(value)));
  return JSON.stringify(value) ?? 'null';
}

/** @returns the text of a mutated value, which need not be JSON any more */
export function mutateJson(valid: unknown, draw: Draw): Buffer {
  const value = changed(valid, draw);
  const text = Buffer.from(written(draw.oneIn(4) && value instanceof Entries ? again(value, draw) : value), 'utf8');
  const bytes = text.includes(NO_UTF8_BYTES) ? withoutUtf8(text) : text;
  return draw.oneIn(12) ? mutateBytes(bytes, draw) : bytes;
}

function withoutUtf8(text: Buffer): Buffer {
  const out = Buffer.alloc(text.length);
  let [length, at] = [0, 0];
  for (let next = text.indexOf(NO_UTF8_BYTES); next >= 0; next = text.indexOf(NO_UTF8_BYTES, at)) {
    length += text.copy(out, length, at, next);
    length = out.writeUInt8(0xff, length);
    at = next + NO_UTF8_BYTES.length;
  }
  length += text.copy(out, length, at);
  return out.subarray(0, length);
}

/** A second change beside the first. */
function again({ entries }: Entries, draw: Draw): Entries {
  const at = draw.below(entries.length);
  return new Entries(entries.map(([name, each], index) => [name, index === at ? changed(each, draw) : each]));
}
