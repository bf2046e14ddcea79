/**
 * A host's file system as two views: what programs see, and what a crash of the host leaves. Data of a file gets from the one
 * to the other by a sync of the file, names by a sync of their folder (which, on half of all hosts and as on ext4, takes the
 * folder's own name along); what was not synced is kept or lost at random. Paths, descriptors and Node's ways of asking are sim-fs.ts's.
 */
export const PAGE = 4096;

export type NodeKind = 'file' | 'folder' | 'socket';

interface Content {
  pages: Map<number, Buffer>;
  size: number;
}

export class Inode {
  readonly ino: number;
  readonly kind: NodeKind;
  /** What programs see. */
  now: Content = { pages: new Map(), size: 0 };
  /** What a crash leaves for certain. */
  onDisk: Content = { pages: new Map(), size: 0 };
  readonly entries = new Map<string, Inode>();
  entriesOnDisk = new Map<string, Inode>();
  dirty = false;
  links = 0;
  version = 0;
  mtimeMs: number;
  /** Who holds an exclusive lock. */
  lockedBy: object | undefined;
  /** Of a socket: who listens. */
  listener: object | undefined;

  constructor(ino: number, kind: NodeKind, nowMs: number) {
    this.ino = ino;
    this.kind = kind;
    this.mtimeMs = nowMs;
  }
}

interface NameChange {
  readonly folders: readonly Inode[];
  readonly apply: () => void;
}

export class DiskModel {
  readonly root: Inode;
  /** No new block can be had. */
  full = false;
  /** A synced folder has its own name too, as on ext4; else that is its parent's, as POSIX has it. */
  keepsOwnNames = true;
  /** Rises with every change. */
  generation = 0;
  readonly #now: () => number;
  #nextIno = 1;
  #changes: NameChange[] = [];
  readonly #touched = new Set<Inode>();

  constructor(now: () => number) {
    this.#now = now;
    this.root = this.make('folder');
  }

  make(kind: NodeKind): Inode {
    return new Inode((this.#nextIno += 1), kind, this.#now());
  }

  // ---- names

  link(folder: Inode, name: string, node: Inode): void {
    node.links += 1;
    folder.entries.set(name, node);
    this.#change([folder], () => folder.entriesOnDisk.set(name, node));
  }

  unlink(folder: Inode, name: string): void {
    const node = folder.entries.get(name);
    if (!node) return;
    node.links -= 1;
    folder.entries.delete(name);
    this.#change([folder], () => folder.entriesOnDisk.delete(name));
  }

  rename(from: Inode, name: string, to: Inode, newName: string): void {
    const node = from.entries.get(name);
    if (!node) return;
    const replaced = to.entries.get(newName);
    if (replaced === node) return;
    if (replaced) replaced.links -= 1;
    from.entries.delete(name);
    to.entries.set(newName, node);
    this.#change([from, to], () => {
      from.entriesOnDisk.delete(name);
      to.entriesOnDisk.set(newName, node);
    });
  }

  #change(folders: readonly Inode[], apply: () => void): void {
    this.generation += 1;
    this.#changes.push({ folders, apply });
  }

  // ---- content

  read(node: Inode, into: Buffer, position: number): number {
    const { pages, size } = node.now;
    const count = Math.max(0, Math.min(into.length, size - position));
    for (let done = 0; done < count; ) {
      const [page, at] = [Math.floor((position + done) / PAGE), (position + done) % PAGE];
      const length = Math.min(PAGE - at, count - done);
      const bytes = pages.get(page);
      if (bytes) bytes.copy(into, done, at, at + length);
      else into.fill(0, done, done + length);
      done += length;
    }
    return count;
  }

  /** @returns false where the disk is full; what fits has been written then */
  write(node: Inode, bytes: Buffer, position: number): boolean {
    const { now, onDisk } = node;
    this.#changed(node);
    for (let done = 0; done < bytes.length; ) {
      const [number, at] = [Math.floor((position + done) / PAGE), (position + done) % PAGE];
      const length = Math.min(PAGE - at, bytes.length - done);
      let page = now.pages.get(number);
      if (!page && this.full) return false;
      if (!page || page === onDisk.pages.get(number)) {
        const fresh = Buffer.alloc(PAGE);
        page?.copy(fresh);
        page = fresh;
        now.pages.set(number, page);
      }
      bytes.copy(page, at, done, done + length);
      done += length;
      now.size = Math.max(now.size, position + done);
    }
    return true;
  }

  truncate(node: Inode, size: number): void {
    this.#changed(node);
    const last = Math.ceil(size / PAGE);
    if (size < node.now.size) {
      for (const number of [...node.now.pages.keys()]) if (number >= last) node.now.pages.delete(number);
      this.#clearTail(node, size);
    }
    node.now.size = size;
  }

  punch(node: Inode, position: number, length: number): void {
    this.#changed(node);
    for (let number = Math.ceil(position / PAGE); (number + 1) * PAGE <= position + length; number += 1)
      node.now.pages.delete(number);
  }

  #clearTail(node: Inode, size: number): void {
    const at = size % PAGE;
    const number = Math.floor(size / PAGE);
    const page = at === 0 ? undefined : node.now.pages.get(number);
    if (!page) return;
    const fresh = Buffer.alloc(PAGE);
    page.copy(fresh, 0, 0, at);
    node.now.pages.set(number, fresh);
  }

  /** Where data begins from `offset` on, or its end; undefined where none does. */
  nextData(node: Inode, offset: number): number | undefined {
    for (let page = Math.floor(offset / PAGE); page * PAGE < node.now.size; page += 1)
      if (node.now.pages.has(page)) return Math.max(offset, page * PAGE);
    return undefined;
  }

  nextHole(node: Inode, offset: number): number {
    let page = Math.floor(offset / PAGE);
    while (page * PAGE < node.now.size && node.now.pages.has(page)) page += 1;
    return Math.min(node.now.size, Math.max(offset, page * PAGE));
  }

  // ---- what lasts

  sync(node: Inode): void {
    if (node.kind === 'folder') this.#syncNames(node);
    else if (node.dirty) {
      node.onDisk = { pages: new Map(node.now.pages), size: node.now.size };
      node.dirty = false;
      this.#touched.delete(node);
    }
  }

  #syncNames(folder: Inode): void {
    if (this.#changes.length === 0) return;
    const folders = new Set([folder, ...(this.keepsOwnNames ? this.#above(folder) : [])]);
    for (let size = -1; size !== folders.size; ) {
      size = folders.size;
      for (const { folders: of } of this.#changes)
        if (of.some((each) => folders.has(each))) for (const each of of) folders.add(each);
    }
    this.#changes = this.#changes.filter(({ folders: of, apply }) => {
      if (!of.some((each) => folders.has(each))) return true;
      apply();
      return false;
    });
  }

  /** The folders on the way to one. */
  #above(folder: Inode): Inode[] {
    const find = (at: Inode): Inode[] | undefined => {
      for (const child of at.entries.values()) {
        if (child.kind !== 'folder') continue;
        if (child === folder) return [at];
        const below = find(child);
        if (below) return [at, ...below];
      }
      return undefined;
    };
    return find(this.root) ?? [];
  }

  /** The host crashes: of what was not synced, some is there. */
  crash(random: () => number): void {
    this.generation += 1;
    const inOrder = random() < 0.5;
    const upTo = Math.floor(random() * (this.#changes.length + 1));
    for (const [index, { apply }] of this.#changes.entries()) if (inOrder ? index < upTo : random() < 0.5) apply();
    this.#changes = [];
    for (const node of this.#touched) this.#crashContent(node, random);
    this.#touched.clear();
    this.#restore(this.root, new Set());
  }

  #crashContent(node: Inode, random: () => number): void {
    const { now, onDisk } = node;
    const size = random() < 0.5 ? now.size : onDisk.size;
    const pages = new Map(onDisk.pages);
    for (const number of new Set([...now.pages.keys(), ...onDisk.pages.keys()])) {
      const page = now.pages.get(number);
      if (page === onDisk.pages.get(number) || random() < 0.5) continue;
      if (page) pages.set(number, page);
      else pages.delete(number);
    }
    for (const number of [...pages.keys()]) if (number * PAGE >= size) pages.delete(number);
    node.onDisk = { pages, size };
    node.now = { pages: new Map(pages), size };
    node.dirty = false;
    node.version += 1;
  }

  #restore(folder: Inode, seen: Set<Inode>): void {
    if (seen.has(folder)) return;
    seen.add(folder);
    folder.entries.clear();
    for (const [name, node] of folder.entriesOnDisk) {
      if (!seen.has(node) && node.kind !== 'folder') node.links = 0;
      node.links += 1;
      node.lockedBy = undefined;
      node.listener = undefined;
      folder.entries.set(name, node);
      if (node.kind === 'folder') this.#restore(node, seen);
      else seen.add(node);
    }
  }

  #changed(node: Inode): void {
    this.generation += 1;
    node.version += 1;
    node.mtimeMs = this.#now();
    if (node.dirty) return;
    node.dirty = true;
    this.#touched.add(node);
  }
}
