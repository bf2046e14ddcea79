/**
 * Loads the product's own compiled modules, anew for each life of a simulated process: the code is compiled once and run as
 * often as processes start, with time, chance and process-wide things shadowed, and with the modules that touch the world
 * replaced. What is pure (src/model, src/encoder, packages) is shared. Edits to the compiled text make a mutant of the product.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { Script } from 'node:vm';

export interface Edit {
  /** Below the compiled root, as `src/sync/source-hub`. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** How often `find` has to be there; 1 where nothing is said. */
  readonly count?: number;
}

/** Names that product code takes for globals. */
export const SHADOWED = [
  'setTimeout',
  'clearTimeout',
  'setInterval',
  'clearInterval',
  'setImmediate',
  'clearImmediate',
  'Date',
  'performance',
  'process',
] as const;
export type Globals = Readonly<Record<(typeof SHADOWED)[number], unknown>>;

/** @returns the module in place of the product's own or a package's; undefined for none */
export type Replacement = (name: string, load: Load) => unknown;
/** @param name below the compiled root, as `src/agent/host` */
export type Load = (name: string) => Readonly<Record<string, unknown>>;

type Wrapper = (
  exports: unknown,
  require: (id: string) => unknown,
  module: { exports: unknown },
  ...globals: unknown[]
) => void;

const ROOT = join(__dirname, '../..');
/** Pure: no state, no clock, nothing of the world. */
const SHARED = [
  /^src\/model\//,
  /^src\/encoder\//,
  /^src\/transport\/(frame|counters|hello|grants)$/,
  /^src\/hypervisor\/qemu\/(qmp-schemas|migration-stream-[a-z]+|guest-command|guest-disks|relocate[a-z-]*|network-map|port-ranges|run-places|option-[a-z]+|allowance|allowed-[a-z]+)$/,
  /^src\/sync\/(protocol|source\/batch-counts|source\/image-results|codec\/codec-jobs)$/,
];

const compiledBefore = new Map<string, Wrapper>();

export class Program {
  readonly #edits: ReadonlyMap<string, readonly Edit[]>;
  readonly #edited = new Map<string, Wrapper>();
  readonly #privateFiles = new Map<string, boolean>();

  constructor(edits: readonly Edit[] = []) {
    const byFile = new Map<string, Edit[]>();
    for (const edit of edits) byFile.set(edit.file, [...(byFile.get(edit.file) ?? []), edit]);
    this.#edits = byFile;
    // An edit that does not fit is an error at once, not a mutant that lives.
    for (const file of byFile.keys()) this.#wrapper(file);
  }

  /** One life of a process. @returns what loads its modules, each once */
  start(globals: Globals, replacement: Replacement): Load {
    const loaded = new Map<string, { exports: unknown }>();
    const values = SHADOWED.map((name) => globals[name]);
    const outside = new Map<string, unknown>();
    const load = (name: string): unknown => {
      const known = loaded.get(name);
      if (known) return known.exports;
      const module = { exports: {} as unknown };
      loaded.set(name, module);
      const replaced = replacement(name, load as Load);
      if (replaced !== undefined) {
        module.exports = replaced;
        return replaced;
      }
      if (!this.#isPrivate(name)) {
        module.exports = hostRequire(join(ROOT, `${name}.js`));
        return module.exports;
      }
      const file = join(ROOT, `${name}.js`);
      const from = dirname(file);
      const requireFrom = (id: string): unknown => {
        if (id.startsWith('.')) return load(inRoot(from, id));
        if (!outside.has(id)) outside.set(id, replacement(id, load as Load) ?? hostRequire(id));
        return outside.get(id);
      };
      this.#wrapper(name)(module.exports, requireFrom, module, file, from, ...values);
      return module.exports;
    };
    return load as Load;
  }

  #wrapper(name: string): Wrapper {
    const edits = this.#edits.get(name);
    const cache = edits ? this.#edited : compiledBefore;
    const known = cache.get(name);
    if (known) return known;
    const source = (edits ?? []).reduce(applyEdit, readFileSync(join(ROOT, `${name}.js`), 'utf8'));
    const wrapper = compile(name, source);
    cache.set(name, wrapper);
    return wrapper;
  }

  /** Pure modules are shared, but for those that are edited and whoever stands on them. */
  #isPrivate(name: string): boolean {
    if (!SHARED.some((pattern) => pattern.test(name))) return true;
    if (this.#edits.size === 0) return false;
    const known = this.#privateFiles.get(name);
    if (known !== undefined) return known;
    this.#privateFiles.set(name, false);
    const source = readFileSync(join(ROOT, `${name}.js`), 'utf8');
    const needs = [...source.matchAll(/require\("(\.[^"]+)"\)/g)].map(([, id]) =>
      inRoot(dirname(join(ROOT, name)), id ?? ''),
    );
    const isPrivate = this.#edits.has(name) || needs.some((each) => this.#isPrivate(each));
    this.#privateFiles.set(name, isPrivate);
    return isPrivate;
  }
}

const hostRequire = createRequire(__filename);

const namesBefore = new Map<string, string>();

function inRoot(from: string, id: string): string {
  const key = `${from} ${id}`;
  const known = namesBefore.get(key);
  if (known !== undefined) return known;
  const path = relative(ROOT, join(from, id));
  const name = path.endsWith('activities') || path.endsWith('workflows') ? `${path}/index` : path;
  namesBefore.set(key, name);
  return name;
}

function applyEdit(source: string, { file, find, replace, count = 1 }: Edit): string {
  // How lines are broken is the formatter's.
  const pieces = source.split(new RegExp(find.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+')));
  if (pieces.length - 1 !== count)
    throw new Error(`An edit of ${file} expects ${count} of its text and finds ${pieces.length - 1}: ${find}`);
  return pieces.join(replace);
}

function compile(name: string, source: string): Wrapper {
  const parameters = ['exports', 'require', 'module', '__filename', '__dirname', ...SHADOWED].join(', ');
  return new Script(`(function (${parameters}) {${source}\n})`, {
    filename: join(ROOT, `${name}.js`),
  }).runInThisContext() as Wrapper;
}
