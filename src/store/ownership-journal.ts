/**
 * Who owns a VM, as this host knows it: a journal per VM, durable before anything is said or done on its strength. One
 * JSON object a line, each with a check; the file is replaced as a whole, so a crash leaves the old or the new one.
 *
 *   source:       claimed -> handed_over -> released
 *                    |            |  (the destination has promised not to start, or an operator overrides)
 *                    +------------+-----> rolled_back
 *   destination:  promised -> mine -> installed
 *                    +------> abandoned
 *
 * `mine` is the point of no return. The table of what a crash at each state means: docs/migration-protocol.md.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { quickHash } from '../encoder/hash';
import { DwcpError } from '../model/errors';
import { migrationIdSchema } from '../model/ids';
import { readIfThere, writeDurably } from './durable-file';

export const OWNERSHIP_STATES = ['claimed', 'handed_over', 'released', 'rolled_back', 'promised', 'mine', 'installed', 'abandoned'] as const;
export type OwnershipState = (typeof OWNERSHIP_STATES)[number];

const entrySchema = z.strictObject({
  state: z.enum(OWNERSHIP_STATES),
  migrationId: migrationIdSchema,
  /** Grows with every migration of the VM, wherever it is: an older migration's message is refused. */
  fence: z.int().min(0),
  atMs: z.number(),
  note: z.string().optional(),
});
export type OwnershipEntry = z.infer<typeof entrySchema>;

/** Entries kept per VM: some dozens of migrations. */
const KEPT_ENTRIES = 200;

/** States in which a migration still has the VM in its hands on this host. */
const OPEN_STATES: ReadonlySet<OwnershipState> = new Set(['claimed', 'handed_over', 'promised', 'mine']);

export function isOpenState(state: OwnershipState): boolean {
  return OPEN_STATES.has(state);
}

function encode(entry: OwnershipEntry): string {
  const json = JSON.stringify(entry);
  return `${quickHash(Buffer.from(json)).toString('hex')} ${json}\n`;
}

function decode(line: string): OwnershipEntry | undefined {
  const [check, json] = [line.slice(0, 16), line.slice(17)];
  if (quickHash(Buffer.from(json)).toString('hex') !== check) return undefined;
  return entrySchema.parse(JSON.parse(json));
}

export class OwnershipJournal {
  readonly #folder: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'ownership');
  }

  /** Every entry of a VM, oldest first. @throws JOURNAL_CORRUPT where a line is damaged */
  async entries(vmId: string): Promise<OwnershipEntry[]> {
    const text = await readIfThere(this.#path(vmId));
    if (!text) return [];
    const lines = text.toString('utf8').split('\n').filter((line) => line !== '');
    return lines.map((line, index) => {
      const entry = decode(line);
      if (!entry) throw new DwcpError('JOURNAL_CORRUPT', `${this.#path(vmId)} is damaged in line ${index + 1}`);
      return entry;
    });
  }

  /** The last entry of a VM, or of one migration of it. */
  async last(vmId: string, migrationId?: string): Promise<OwnershipEntry | undefined> {
    return (await this.entries(vmId)).filter((entry) => migrationId === undefined || entry.migrationId === migrationId).at(-1);
  }

  /** The highest fence this host has seen for a VM. */
  async fence(vmId: string): Promise<number> {
    return Math.max(0, ...(await this.entries(vmId)).map((entry) => entry.fence));
  }

  /** Adds an entry; it is durable when this returns. */
  async append(vmId: string, state: OwnershipState, migrationId: string, fence: number, note?: string): Promise<OwnershipEntry> {
    const entry: OwnershipEntry = { state, migrationId, fence, atMs: Date.now(), ...(note !== undefined && { note }) };
    const kept = (await this.entries(vmId)).slice(1 - KEPT_ENTRIES);
    await writeDurably(this.#path(vmId), [...kept, entry].map(encode).join(''));
    return entry;
  }

  #path(vmId: string): string {
    return join(this.#folder, `${vmId}.journal`);
  }
}
