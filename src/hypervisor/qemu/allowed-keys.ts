/**
 * Rules for the text behind an option: which keys may be there and what each may say. Whatever is not named is refused: QEMU gains
 * options with every release, and one that is not known here may name anything of the host.
 */
import { ownValue } from '../../model/own-value';
import { type Allowance, isPrintable, type Objection, quoted } from './allowance';
import { type OptionText, parseOptionText } from './option-text';

export type Rule = (text: string, allowance: Allowance) => Objection;
export type KeyRules = Readonly<Record<string, Rule>>;

/** Names, numbers, sizes, addresses: nothing that leads anywhere. */
const WORD = /^[\w.:+@% -]{0,1000}$/;
/** Keys of devices and the like that name something of a host, whatever the device. */
const OF_THE_HOST =
  /file|path|script|helper|rootdir|evdev|sysfs|socket|hostdev|hostbus|hostaddr|hostport|fds?$|^host$/i;

export const word: Rule = (text) => (WORD.test(text) ? undefined : `${quoted(text)} is not a plain word`);
export const text: Rule = (value) =>
  isPrintable(value) && value.length <= 10_000 ? undefined : `${quoted(value)} holds control characters or is too long`;
export const oneOf =
  (...allowed: readonly string[]): Rule =>
  (value) =>
    allowed.includes(value) ? undefined : `${quoted(value)} is not allowed; ${allowed.join(' or ')} is`;
export const refused =
  (why: string): Rule =>
  () =>
    why;

/** The same rule for keys that are written one behind the other. */
export function all(rule: Rule, keys: string): KeyRules {
  return Object.fromEntries(
    keys
      .trim()
      .split(/\s+/)
      .map((key) => [key, rule]),
  );
}

/** Keys of which QEMU takes several. */
const MANY = new Set(['hostfwd']);

/** @throws nothing; @returns the first objection to a key or its value */
export function checkPairs(
  { pairs }: OptionText,
  ruleOf: (key: string) => Rule | undefined,
  allowance: Allowance,
): Objection {
  const seen = new Set<string>();
  for (const { key, value } of pairs) {
    if (seen.has(key) && !MANY.has(key)) return `${quoted(key)} is given twice; give it once`;
    seen.add(key);
    const rule = ruleOf(key);
    if (!rule) return `${quoted(key)} is not among what a guest may be given; leave it out`;
    const objection = rule(value, allowance);
    if (objection !== undefined) return `${key}= ${objection}`;
  }
  return undefined;
}

/** An option whose text is pairs with these keys. */
export function keyed(rules: KeyRules, unsaid?: string): Rule {
  return (value, allowance) => {
    const parsed = parseOptionText(value, unsaid);
    return parsed ? checkPairs(parsed, (key) => ownValue(rules, key), allowance) : unreadable(value);
  };
}

/** Properties of a device: any but those that name something of a host. */
export function propertyRule(key: string): Rule | undefined {
  if (!/^[\w.-]{1,100}$/.test(key)) return undefined;
  if (key === 'romfile')
    return (value) => (value === '' ? undefined : 'names a file of the host; leave it out, or say romfile=');
  return OF_THE_HOST.test(key) ? refused('names something of the host; leave it out') : word;
}

export function unreadable(value: string): string {
  return `${quoted(value)} cannot be read; write it as QEMU’s manual does`;
}
