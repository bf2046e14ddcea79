/**
 * Who owns a VM, as this host knows it: a journal per VM, durable before anything is said or done on its strength. Lines are
 * added only inside exclusively(), which lets in one at a time for each VM: check, read and write are one. What states and
 * events mean: src/model/ownership-machine.ts.
 *
 *   line:  16 hex digits: XXH3-64 of (the check of the line before, this JSON)   blank   JSON (OwnershipEntry)
 *   end:   16 hex digits: XXH3-64 of (the check of the last line, "end N")       blank   "end N", N the number of lines
 *
 * The file is replaced as a whole, so a crash leaves the old or the new one; one that is cut off anywhere, or gone although
 * there was one (`<vm>.known`), is corrupt, not believed. Space for the next lines is set aside when a VM comes into play.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { quickHash } from '../encoder/hash';
import { DwcpError, messageOf } from '../model/errors';
import { type HandOver, handOverSchema } from '../model/hand-over';
import { hostIdSchema, migrationIdSchema } from '../model/ids';
import { isOpenState, OWNERSHIP_STATES, type OwnershipState } from '../model/ownership-machine';
import { exists, makeSpare, readIfThere, replaceBySpare, writeDurably } from './durable-file';
import { syncFolderIfThere } from './durable-folder';
import { idPath } from './id-path';
import { VmLocks } from './vm-locks';

const detailsSchema = z.strictObject({
  note: z.string().optional(),
  /** claimed: the workflow that leads the migration; without it the one that the VM's id gives. */
  workflowId: z.string().max(1000).optional(),
  /** handed_over; kept until another migration writes. */
  handOver: handOverSchema.optional(),
  /** releasing: where it lives now, and the generation of its images. */
  movedTo: hostIdSchema.optional(),
  generation: z.int().min(0).optional(),
  /** mine: root of a running guest's memory as it was verified; nothing else may be loaded behind this line. */
  memoryRoot: z.string().max(64).optional(),
});
export type OwnershipDetails = z.infer<typeof detailsSchema>;

const entrySchema = detailsSchema.extend({
  state: z.enum(OWNERSHIP_STATES as [OwnershipState, ...OwnershipState[]]),
  migrationId: migrationIdSchema,
  /** Grows with every migration of the VM, wherever it is: an older migration's message is refused. */
  fence: z.int().min(0),
  atMs: z.number(),
});
export type OwnershipEntry = z.infer<typeof entrySchema>;

/** Entries kept per VM: some dozens of migrations. */
const KEPT_ENTRIES = 60;
/** Lines that follow on one that opens a migration: handed over, releasing, released; or rolling back, rolled back. */
const SPARES = 3;
const SPARE_BYTES = 96 * 1024;

function checkOf(before: string, text: string): string {
  return quickHash(Buffer.from(before + text)).toString('hex');
}

function encode(entries: readonly OwnershipEntry[]): Buffer {
  let check = '';
  const last = withPart(entries).at(-1)?.migrationId;
  const lines = entries.map((entry) => {
    const { handOver, ...rest } = entry;
    const json = JSON.stringify(handOver && entry.migrationId === last ? entry : rest);
    check = checkOf(check, json);
    return `${check} ${json}\n`;
  });
  const end = `end ${entries.length}`;
  return Buffer.from(`${lines.join('')}${checkOf(check, end)} ${end}\n`);
}

/** @throws what is wrong, in words */
function decode(text: string): OwnershipEntry[] {
  const lines = text.split('\n');
  const entries: OwnershipEntry[] = [];
  let check = '';
  for (const [index, line] of lines.entries()) {
    const [given, json] = [line.slice(0, 16), line.slice(17)];
    check = checkOf(check, json);
    if (given !== check) throw new Error(`line ${index + 1} is damaged or cut off`);
    if (json === `end ${entries.length}`) {
      if (lines.slice(index + 1).some((rest) => rest !== ''))
        throw new Error(`something follows its end in line ${index + 2}`);
      return entries;
    }
    entries.push(entrySchema.parse(JSON.parse(json)));
  }
  throw new Error('its end is missing');
}

/** One VM's journal in the hands of who may change it. */
export class OwnedVm {
  readonly vmId: string;
  readonly #journal: OwnershipJournal;
  readonly #write: (entries: readonly OwnershipEntry[]) => Promise<void>;

  constructor(vmId: string, journal: OwnershipJournal, write: (entries: readonly OwnershipEntry[]) => Promise<void>) {
    this.vmId = vmId;
    this.#journal = journal;
    this.#write = write;
  }

  last(migrationId?: string): Promise<OwnershipEntry | undefined> {
    return this.#journal.last(this.vmId, migrationId);
  }

  fence(): Promise<number> {
    return this.#journal.fence(this.vmId);
  }

  /** Adds an entry; it is durable when this returns. */
  async append(
    state: OwnershipState,
    migrationId: string,
    fence: number,
    details: OwnershipDetails = {},
  ): Promise<OwnershipEntry> {
    const entry: OwnershipEntry = { state, migrationId, fence, atMs: Date.now(), ...details };
    const kept = (await this.#journal.entries(this.vmId)).slice(1 - KEPT_ENTRIES);
    await this.#write([...kept, entry]);
    this.#journal.onEntry(this.vmId, entry);
    return entry;
  }
}

export class OwnershipJournal {
  readonly #folder: string;
  readonly #locks = new VmLocks();
  /** Behind a write that has failed what can be read may be its line, which is not durable yet: the folder is synced first. */
  #failedWrites = 0;
  #settledWrites = 0;
  /** Told of each line once it is durable. */
  readonly onEntry: (vmId: string, entry: OwnershipEntry) => void;

  constructor(dataDir: string, onEntry: OwnershipJournal['onEntry'] = () => undefined) {
    this.onEntry = onEntry;
    this.#folder = join(dataDir, 'ownership');
  }

  /** Every entry of a VM, oldest first. @throws JOURNAL_CORRUPT where anything of it is damaged or missing */
  async entries(vmId: string): Promise<OwnershipEntry[]> {
    const path = this.#path(vmId);
    const failed = this.#failedWrites;
    if (failed > this.#settledWrites) await syncFolderIfThere(this.#folder);
    this.#settledWrites = failed;
    const text = await readIfThere(path);
    if (!text) {
      if (await exists(this.#knownPath(vmId))) throw corrupt(path, 'it is gone');
      return [];
    }
    try {
      return decode(text.toString('utf8'));
    } catch (error) {
      throw corrupt(path, messageOf(error));
    }
  }

  /** The last entry of one migration of a VM; or of all that have had a part in it here. */
  async last(vmId: string, migrationId?: string): Promise<OwnershipEntry | undefined> {
    const entries = await this.entries(vmId);
    return (
      migrationId === undefined ? withPart(entries) : entries.filter((entry) => entry.migrationId === migrationId)
    ).at(-1);
  }

  /** What a migration has handed over; undefined where it has not, or where another has come since. */
  async handOver(vmId: string, migrationId: string): Promise<HandOver | undefined> {
    return (await this.entries(vmId)).findLast(
      (entry) => entry.migrationId === migrationId && entry.handOver !== undefined,
    )?.handOver;
  }

  /** The workflow that leads a migration of a VM, where its claim says so. */
  async workflowOf(vmId: string, migrationId: string): Promise<string | undefined> {
    return (await this.entries(vmId)).findLast(
      (entry) => entry.migrationId === migrationId && entry.workflowId !== undefined,
    )?.workflowId;
  }

  /** The highest fence this host has seen for a VM. */
  async fence(vmId: string): Promise<number> {
    return Math.max(0, ...withPart(await this.entries(vmId)).map((entry) => entry.fence));
  }

  /** One at a time for each VM; not to be asked for again inside. */
  exclusively<T>(vmId: string, work: (vm: OwnedVm) => Promise<T>): Promise<T> {
    return this.#locks.run(vmId, () => work(new OwnedVm(vmId, this, (entries) => this.#writeOrDoubt(vmId, entries))));
  }

  async #writeOrDoubt(vmId: string, entries: readonly OwnershipEntry[]): Promise<void> {
    try {
      await this.#write(vmId, entries);
    } catch (error) {
      this.#failedWrites += 1;
      throw error;
    }
  }

  async #write(vmId: string, entries: readonly OwnershipEntry[]): Promise<void> {
    const path = this.#path(vmId);
    const content = encode(entries);
    const [before, after] = [entries.slice(0, -1), entries]
      .map((list) => withPart(list).at(-1))
      .map((entry) => entry !== undefined && isOpenState(entry.state));
    const spares = Array.from({ length: SPARES }, (_, index) => this.#sparePath(vmId, index + 1));
    // What opens a migration says at once where the disk has no room; what follows finds the room that was set aside.
    const opens = after && !before;
    if (opens) await Promise.all(spares.map((spare) => makeSpare(spare, SPARE_BYTES)));
    if (opens || !(await this.#writeSpare(spares, path, content))) await writeDurably(path, content);
    if (!(await exists(this.#knownPath(vmId)))) await writeDurably(this.#knownPath(vmId), '');
    if (!after) await Promise.all(spares.map((spare) => rm(spare, { force: true })));
  }

  async #writeSpare(spares: readonly string[], path: string, content: Buffer): Promise<boolean> {
    for (const spare of spares) if (await replaceBySpare(spare, path, content)) return true;
    return false;
  }

  #path(vmId: string): string {
    return idPath(this.#folder, vmId, '.journal');
  }

  #sparePath(vmId: string, number: number): string {
    return idPath(this.#folder, vmId, `.spare-${number}`);
  }

  #knownPath(vmId: string): string {
    return idPath(this.#folder, vmId, '.known');
  }
}

/** A promise never to start a VM that was not promised before is kept, and changes nothing for those who have a part in it. */
function withPart(entries: readonly OwnershipEntry[]): readonly OwnershipEntry[] {
  const parts = new Set(entries.filter(({ state }) => state !== 'abandoned').map(({ migrationId }) => migrationId));
  return entries.filter(({ migrationId }) => parts.has(migrationId));
}

function corrupt(path: string, what: string): DwcpError {
  return new DwcpError('JOURNAL_CORRUPT', `${path}: ${what}`, {
    hint:
      'Keep the file. Find out on which host the VM runs before anything is started; then put the journal back, or ' +
      'remove it and its .known file',
  });
}
