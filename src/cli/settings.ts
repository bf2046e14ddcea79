/**
 * Where options come from: flags, then DWCP_* variables, then the configuration file, then the table's defaults. Flags
 * are made from the table; an unknown name or a bad value anywhere is CONFIG_INVALID and names its place.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { parse } from 'yaml';
import { DwcpError, messageOf } from '../model/errors';
import type { OptionSpec } from '../model/option-spec';
import { describe, parseOption } from '../model/option-text';
import {
  MIGRATION_OPTIONS,
  type MigrationOptions,
  PROCESS_OPTIONS,
  type ProcessOptions,
  withDefaults,
} from '../model/options';
import { ownValue } from '../model/own-value';
import { parseDurationMs } from '../model/units';
import { readJudged } from './trusted-file';

type Table = Readonly<Record<string, OptionSpec>>;

const DEFAULT_FILES = ['dwcp.yaml', '/etc/dwcp/dwcp.yaml'];

export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

export function variableOf(name: string): string {
  return `DWCP_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** Adds a flag for each option of a table, or for those named. */
export function addOptions(command: Command, table: Table, names: readonly string[] = Object.keys(table)): Command {
  for (const name of names) {
    const spec = ownValue(table, name);
    if (!spec) throw new Error(`no option ${name}`);
    const flag =
      spec.type === 'boolean' ? `--${kebab(name)} [true|false]` : `--${kebab(name)} <${spec.unit ?? spec.type}>`;
    const shown = spec.default === '' ? '' : ` (default ${String(spec.default)})`;
    command.addOption(new Option(flag, `${spec.help}; ${describe(spec)}${shown}`).argParser((text: string) => text));
  }
  return command;
}

interface FileSettings {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/**
 * A file that was named belongs to whomever it belongs to; one that was found is believed where nobody else can have written it.
 * @throws CONFIG_INVALID
 */
function judge(path: string, distrust: string, wasNamed: boolean): void {
  if (!wasNamed)
    throw new DwcpError('CONFIG_INVALID', `${resolve(path)} is not read: ${distrust}`, {
      hint: `Make it your own (chown, chmod go-w, its folder too), remove it, or name it with --config ${path}`,
    });
  if (warned.has(path) || !distrust.startsWith('others')) return;
  warned.add(path);
  process.stderr.write(`${resolve(path)}: ${distrust}\n`);
}

const warned = new Set<string>();

function readSettingsFile(named: string | undefined): FileSettings | undefined {
  const path = named ?? process.env.DWCP_CONFIG ?? DEFAULT_FILES.find((file) => existsSync(file));
  if (path === undefined) return undefined;
  let values: unknown;
  try {
    const { text, distrust } = readJudged(path);
    if (distrust !== undefined) judge(path, distrust, path === named || path === process.env.DWCP_CONFIG);
    values = parse(text) ?? {};
  } catch (cause) {
    if (cause instanceof DwcpError) throw cause;
    throw new DwcpError(
      'CONFIG_INVALID',
      `The configuration file ${path} cannot be read: ${messageOf(cause).split('\n')[0] ?? ''}`,
      { cause },
    );
  }
  if (typeof values !== 'object' || Array.isArray(values))
    throw new DwcpError('CONFIG_INVALID', `The configuration file ${path} holds no options`);
  const known = { ...MIGRATION_OPTIONS, ...PROCESS_OPTIONS } as Table;
  const unknown = Object.keys(values as object).find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined) throw new DwcpError('CONFIG_INVALID', `${path}: there is no option ${unknown}`);
  return { path, values: values as Record<string, unknown> };
}

/** What was written, anywhere, for the options of a table; nothing for those left to their defaults. */
function collect(table: Table, flags: Readonly<Record<string, unknown>>): Record<string, boolean | number | string> {
  const file = readSettingsFile(typeof flags.config === 'string' ? flags.config : undefined);
  const values: Record<string, boolean | number | string> = {};
  for (const [name, spec] of Object.entries(table)) {
    const places: [string, unknown][] = [
      [`--${kebab(name)}`, flags[name]],
      [variableOf(name), process.env[variableOf(name)]],
      [`${file?.path ?? ''}: ${name}`, file && ownValue(file.values, name)],
    ];
    const written = places.find(([, value]) => value !== undefined);
    if (!written) continue;
    const [place, value] = written;
    try {
      values[name] = parseOption(name, spec, value === true ? 'true' : String(value));
    } catch (error) {
      throw new DwcpError('CONFIG_INVALID', `${place}: ${messageOf(error)}`);
    }
  }
  return values;
}

export function processOptions(flags: Readonly<Record<string, unknown>>): ProcessOptions {
  return withDefaults(PROCESS_OPTIONS, collect(PROCESS_OPTIONS, flags) as Partial<ProcessOptions>);
}

/** Only what was written: the rest is filled in where the migration starts. */
export function migrationOptions(flags: Readonly<Record<string, unknown>>): Partial<MigrationOptions> {
  return collect(MIGRATION_OPTIONS, flags);
}

const LEAST_EVERY_MS = 60_000;

/** How often a schedule runs, from a flag. @throws INVALID_INPUT */
export function scheduledEveryMs(flag: string, given: unknown): number {
  const everyMs = parseDurationMs(String(given));
  if (everyMs !== undefined && everyMs >= LEAST_EVERY_MS) return everyMs;
  throw new DwcpError(
    'INVALID_INPUT',
    `${flag} takes a duration of a minute or more, such as 24h, not "${String(given)}"`,
  );
}
