/**
 * The files that a process names, as this host finds them: relative to the folder in which it was started, and below its root where it
 * has one of its own. Of several places that it may mean, the one is meant of which it has the file open. And what it has open still,
 * though its path is gone or leads elsewhere. All is read from /proc; what may not be seen there is unknown.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

const DELETED = ' (deleted)';
/** As QEMU sees it: what stands before the first colon, where no slash does. */
const PROTOCOL = /^[^/:]+:/;

/** What a path of this host leads to, beside what a process has open by it. */
export type HeldAs =
  | { readonly now: 'the same' | 'nothing' | 'unknown' }
  /** @property heldAt where that which it has open can be read; undefined where it has nothing that was there */
  | { readonly now: 'another'; readonly heldAt: string | undefined };

export class ProcessPaths {
  readonly #pidOf: () => number | undefined;
  #proc: string | undefined;
  #open: Opened | undefined;

  /** @param pid of the process, or how it is found when something is asked */
  constructor(pid: number | (() => number | undefined)) {
    this.#pidOf = typeof pid === 'number' ? () => pid : pid;
  }

  /** @returns undefined where nobody can say which file it means */
  onHost(named: string): string | undefined {
    const path = named.replace(/^file:/, '');
    if (path === '' || PROTOCOL.test(path)) return path;
    const root = this.#link('root') ?? '/';
    if (isAbsolute(path) && root === '/') return path;
    const places = isAbsolute(path) ? [join(root, path), path] : this.#folders().map((folder) => join(folder, path));
    const { ids, links } = this.#opened();
    const held = places.find((place) => ids.has(identityOf(place) ?? '') || links.has(`${place}${DELETED}`));
    if (held !== undefined) return held;
    const [alike, ...more] = [...links.keys()].filter((link) => !isAbsolute(path) && link.endsWith(join('/', path)));
    if (alike !== undefined && more.length === 0) return alike;
    if (isAbsolute(path)) return places.find((place) => identityOf(place) !== undefined) ?? places[0];
    const there = places.filter((place) => this.#isThere(place, path));
    if (there.length > 0) return there.length === 1 ? there[0] : undefined;
    // It may have named one that it has made, and that is gone.
    const [only] = places;
    return only !== undefined && places.length === 1 && identityOf(only) === undefined ? only : undefined;
  }

  heldAs(path: string): HeldAs {
    const { ids, links, seen } = this.#opened();
    const there = identityOf(path);
    if (there === undefined) return { now: 'nothing' };
    if (!seen) return { now: 'unknown' };
    return ids.has(there)
      ? { now: 'the same' }
      : { now: 'another', heldAt: links.get(path) ?? links.get(path + DELETED) };
  }

  /** Where it was started: a QEMU that has put itself in the background has left that folder, and what started it has told it of it. */
  #folders(): string[] {
    const now = this.#link('cwd');
    if (now !== undefined && now !== '/') return now.endsWith(DELETED) ? [] : [now];
    const told = this.#environment().find((word) => word.startsWith('PWD=/'));
    return [...(now === undefined ? [] : [now]), ...(told === undefined ? [] : [told.slice('PWD='.length)])];
  }

  /** Links in the way are followed before `..` goes up; joining the words does not know of them. */
  #isThere(place: string, path: string): boolean {
    const there = identityOf(place);
    if (there === undefined) return false;
    const followed = path.includes('..') ? identityOf(`${this.#folder()}/cwd/${path}`) : undefined;
    return followed === undefined || followed === there;
  }

  #opened(): Opened {
    this.#open ??= openedBy(`${this.#folder()}/fd`);
    return this.#open;
  }

  #folder(): string {
    this.#proc ??= `/proc/${this.#pidOf() ?? 'none'}`;
    return this.#proc;
  }

  #link(name: string): string | undefined {
    return linkAt(`${this.#folder()}/${name}`);
  }

  #environment(): string[] {
    try {
      return readFileSync(`${this.#folder()}/environ`, 'utf8').split('\0');
    } catch {
      return [];
    }
  }
}

interface Opened {
  /** Whether it may be seen at all. */
  readonly seen: boolean;
  readonly ids: ReadonlySet<string>;
  /** What each descriptor is called, and where it is found. */
  readonly links: ReadonlyMap<string, string>;
}

function openedBy(folder: string): Opened {
  const [ids, links] = [new Set<string>(), new Map<string, string>()];
  try {
    for (const fd of readdirSync(folder)) {
      const at = `${folder}/${fd}`;
      const link = linkAt(at);
      const id = link?.startsWith('/') === true ? identityOf(at) : undefined;
      if (link === undefined || id === undefined) continue;
      ids.add(id);
      links.set(link, at);
    }
    return { seen: ids.size > 0, ids, links };
  } catch {
    return { seen: false, ids, links };
  }
}

function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** The file itself, whatever it is called. */
export function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
