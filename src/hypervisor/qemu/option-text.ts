/**
 * The text behind an option, `virtio-blk,drive=d0,serial=a,,b` or JSON, as pairs and back: a comma in a value is written twice,
 * a word without a value is a switch (`readonly`, `nowait`), the first one may be the value of a key that goes unsaid.
 */

export interface Pair {
  readonly key: string;
  readonly value: string;
}

export interface OptionText {
  readonly pairs: readonly Pair[];
  /** The key of the first pair where it was not written. */
  readonly unsaid?: string;
  /** As it was parsed, where it was written as JSON. */
  readonly json?: Readonly<Record<string, unknown>>;
}

/** @param unsaid the key that the first word stands for; @returns undefined where QEMU could not read it either */
export function parseOptionText(text: string, unsaid?: string): OptionText | undefined {
  if (text.startsWith('{')) return parseJson(text);
  const parts = splitAtCommas(text);
  const [first = ''] = parts;
  const namesFirst = unsaid !== undefined && !first.includes('=');
  return {
    pairs: parts.map((part, index) => (namesFirst && index === 0 ? { key: unsaid, value: first } : pairOf(part))),
    ...(namesFirst && { unsaid }),
  };
}

export function printOptionText({ pairs, unsaid, json }: OptionText): string {
  if (json) return JSON.stringify(json);
  return pairs
    .map(({ key, value }, index) => {
      const escaped = value.replaceAll(',', ',,');
      return index === 0 && key === unsaid ? escaped : `${key}=${escaped}`;
    })
    .join(',');
}

export function valueIn({ pairs }: OptionText, ...keys: readonly string[]): string | undefined {
  return pairs.findLast(({ key }) => keys.includes(key))?.value;
}

function splitAtCommas(text: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at] ?? '';
    if (letter !== ',') part += letter;
    else if (text[at + 1] === ',') {
      part += ',';
      at += 1;
    } else {
      parts.push(part);
      part = '';
    }
  }
  return [...parts, part];
}

function pairOf(part: string): Pair {
  const at = part.indexOf('=');
  if (at >= 0) return { key: part.slice(0, at), value: part.slice(at + 1) };
  return part.startsWith('no') ? { key: part.slice(2), value: 'off' } : { key: part, value: 'on' };
}

function parseJson(text: string): OptionText | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return undefined;
  const pairs: Pair[] = [];
  const visit = (value: unknown, key: string): void => {
    if (typeof value === 'object' && value !== null)
      for (const [name, inner] of Object.entries(value)) visit(inner, key === '' ? name : `${key}.${name}`);
    else if (typeof value === 'boolean') pairs.push({ key, value: value ? 'on' : 'off' });
    else if (typeof value === 'string') pairs.push({ key, value });
    else pairs.push({ key, value: value === null ? '' : JSON.stringify(value) });
  };
  visit(json, '');
  return { pairs, json: json as Readonly<Record<string, unknown>> };
}
