/**
 * How a guest's disks may be described: files and block devices by absolute path, as raw or qcow2, and always named as which. QEMU goes by a disk's
 * first bytes where nothing is named, and these are the guest's to write.
 */
import { ownValue } from '../../model/own-value';
import { quoted } from './allowance';
import { all, checkPairs, type KeyRules, oneOf, type Rule, refused, unreadable, word } from './allowed-keys';
import { type OptionText, parseOptionText, valueIn } from './option-text';

/** Keys with which a file is opened. */
const FILE_KEYS =
  'aio aio-max-batch locking drop-cache filename driver node-name read-only auto-read-only discard detect-zeroes';
const OF_ANY_NODE: KeyRules = {
  ...all(
    word,
    'node-name read-only auto-read-only discard detect-zeroes cache.direct cache.no-flush cache.writeback offset size',
  ),
  ...all(
    word,
    'l2-cache-size l2-cache-entry-size cache-size refcount-cache-size cache-clean-interval lazy-refcounts overlap-check discard-no-unref',
  ),
  ...all(word, 'pass-discard-request pass-discard-snapshot pass-discard-other'),
  ...Object.fromEntries(FILE_KEYS.split(' ').map((key) => [`file.${key}`, word])),
  'file.driver': oneOf('file', 'host_device'),
  backing: (name, allowance) =>
    word(name, allowance) === undefined ? undefined : 'names a file; name its base as a -blockdev of its own',
  'data-file': refused('names a file besides the disk; convert the disk with qemu-img'),
};
const THROTTLE = /^(throttling\.)?(bps|iops)[a-z_-]*$|^throttling\.group$/;

const OF_A_DRIVE: KeyRules = {
  ...OF_ANY_NODE,
  ...all(word, 'if bus unit index id media cache aio readonly snapshot werror rerror copy-on-read'),
  format: oneOf('raw', 'qcow2'),
  driver: oneOf('raw', 'qcow2'),
  file: () => undefined,
};
const OF_A_NODE: KeyRules = {
  ...OF_ANY_NODE,
  ...all(word, FILE_KEYS),
  driver: oneOf('file', 'host_device', 'raw', 'qcow2'),
  file: word,
};

const PATH_KEYS = ['filename', 'file.filename'];

function nodeRule(rules: KeyRules, key: string): Rule | undefined {
  // The path is looked at as a whole.
  if (PATH_KEYS.includes(key)) return () => undefined;
  return THROTTLE.test(key) ? word : ownValue(rules, key);
}

export const drive: Rule = (text, allowance) => {
  const parsed = parseOptionText(text);
  if (!parsed || parsed.json) return unreadable(text);
  const paths = pathsIn(parsed, ['file', 'file.filename']);
  const [path] = paths;
  if (path !== undefined && valueIn(parsed, 'format', 'driver') === undefined)
    return `${quoted(path)} has no format, and QEMU would go by what its guest has written; name it, format=raw or format=qcow2`;
  const objection = checkPairs(
    parsed,
    (key) => (key === 'filename' ? undefined : nodeRule(OF_A_DRIVE, key)),
    allowance,
  );
  if (objection !== undefined || path === undefined) return objection;
  if (paths.length > 1) return 'names two files; name one';
  return isWritable(parsed) ? allowance.disk(path) : allowance.file(path);
};

export const blockdev: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'driver');
  if (!parsed) return unreadable(text);
  const nested = parsed.pairs.find(({ key }) => key.startsWith('backing.'));
  if (nested) return `${quoted(nested.key)} describes a base inside; name it as a -blockdev of its own`;
  const [driver, paths] = [valueIn(parsed, 'driver'), pathsIn(parsed, PATH_KEYS)];
  if (driver === undefined) return 'names no driver; name file, host_device, raw or qcow2';
  const objection = checkPairs(parsed, (key) => nodeRule(OF_A_NODE, key), allowance);
  if (objection !== undefined) return objection;
  const inside = valueIn(parsed, 'file.driver') ?? valueIn(parsed, 'file.filename');
  const isBottom = driver === 'file' || driver === 'host_device';
  if (isBottom ? paths.length !== 1 || inside !== undefined : valueIn(parsed, 'filename') !== undefined)
    return unreadable(text);
  if (inside !== undefined && valueIn(parsed, 'file.driver') === undefined)
    return 'names no file.driver; name it, file or host_device';
  const [path] = paths;
  if (path === undefined) return undefined;
  return isWritable(parsed) ? allowance.disk(path) : allowance.file(path);
};

/** -cdrom: read, and never as anything but what it is. */
export const cdrom: Rule = (path, allowance) => allowance.file(path);

/** -hda and the like say no format, and have no room for one. */
export const unnamed: Rule = (path) =>
  `${quoted(path)} has no format, and QEMU would go by what its guest has written; use -drive file=…,format=raw or qcow2`;

function pathsIn({ pairs }: OptionText, keys: readonly string[]): string[] {
  return pairs.flatMap(({ key, value }) => (keys.includes(key) && value !== '' ? [value] : []));
}

/** Whether the guest's writes go to the file. */
export function isWritable(parsed: OptionText): boolean {
  if (valueIn(parsed, 'snapshot') === 'on') return false;
  const readOnly = parsed.pairs.filter(({ key }) => key === 'readonly' || key === 'read-only');
  if (readOnly.length === 0) return valueIn(parsed, 'media') !== 'cdrom';
  return readOnly.some(({ value }) => value !== 'on');
}
