/**
 * The command of a QEMU that runs, with every file in it by its path on this host: a QEMU finds them from the folder in which it was
 * started, and nobody else knows that afterwards. Which options name files, and how, stands here; whether they may is
 * allowed-options.ts's, which refuses each path that is not absolute.
 */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { type OptionText, parseOptionText, printOptionText } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';

export type OnHost = (path: string) => string | undefined;

const FILES = new Set('-hda -hdb -hdc -hdd -cdrom -kernel -initrd -dtb'.split(' '));
const KEYS: Readonly<Record<string, ReadonlySet<string>>> = {
  '-drive': new Set(['file', 'filename', 'file.filename']),
  '-blockdev': new Set(['filename', 'file.filename']),
  '-chardev': new Set(['path', 'logfile']),
};
/** The key that a first word stands for. */
const UNSAID: Readonly<Record<string, string>> = { '-blockdev': 'driver', '-chardev': 'backend' };
const STREAMS = new Set('-serial -parallel -debugcon -vnc'.split(' '));
/** Where a QEMU looks for firmware that is not in its folder. */
const FIRMWARE = ['/usr/share/qemu', '/usr/share/seabios', '/usr/share/qemu-efi-aarch64', '/usr/local/share/qemu'];

/** Whatever cannot be found stays as it is, to be refused by name. */
export function withHostPaths(command: readonly string[], onHost: OnHost): string[] {
  const [program = '', ...args] = command;
  const plain = (path: string): string => onHost(path) ?? path;
  return [
    program.includes('/') ? plain(program) : program,
    ...printWords(optionWords(args).map((word) => placed(word, plain))),
  ];
}

function placed(option: OptionWord, plain: (path: string) => string): OptionWord {
  const { flag, value } = option;
  if (value === undefined) return option;
  if (FILES.has(flag)) return { flag, value: plain(value) };
  if (flag === '-bios') return { flag, value: firmware(value, plain) };
  if (STREAMS.has(flag)) return { flag, value: stream(value, plain) };
  const keys = KEYS[flag];
  const parsed = keys && parseOptionText(value, UNSAID[flag]);
  if (!keys || !parsed) return option;
  const given = parsed.pairs.filter(({ key }) => keys.has(key));
  return given.every(({ value: path }) => plain(path) === path)
    ? option
    : { flag, value: printOptionText(pathsIn(parsed, keys, plain)) };
}

function pathsIn(
  { pairs, unsaid, json }: OptionText,
  keys: ReadonlySet<string>,
  plain: (path: string) => string,
): OptionText {
  return {
    pairs: pairs.map(({ key, value }) => ({ key, value: keys.has(key) && value !== '' ? plain(value) : value })),
    ...(unsaid !== undefined && { unsaid }),
    ...(json && { json: filenamesIn(json, plain) }),
  };
}

function filenamesIn(
  json: Readonly<Record<string, unknown>>,
  plain: (path: string) => string,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(json).map(([key, value]) => {
      if (key === 'filename' && typeof value === 'string') return [key, plain(value)];
      const isInner = typeof value === 'object' && value !== null && !Array.isArray(value);
      return [key, isInner ? filenamesIn(value as Readonly<Record<string, unknown>>, plain) : value];
    }),
  );
}

/** `file:serial.log`, `unix:run/sock,server=on`. */
function stream(value: string, plain: (path: string) => string): string {
  const [, kind, path = '', rest = ''] = /^(file|unix|pipe):([^,]+)(,.*)?$/s.exec(value) ?? [];
  return kind === undefined ? value : `${kind}:${plain(path)}${rest}`;
}

function firmware(name: string, plain: (path: string) => string): string {
  const own = plain(name);
  if (isAbsolute(name) || existsSync(own)) return own;
  return FIRMWARE.map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? own;
}
