/**
 * What happened on this host that somebody may ask about later: who was let in and who was refused, who owned a VM when, what was
 * started. A line is JSON and holds the hash of the line before, so that none can be changed, taken out or put in between without
 * all that follow. Reading and checking it is audit-reader.ts's.
 *
 *   <data>/audit/00000001.jsonl    {"seq":1,"at":"2026-11-26T22:00:00.000Z","event":"let_in", ... ,"before":"<SHA-256 of the line before>"}
 *
 * Written behind the event, within milliseconds: the journals of ownership are what the product acts on, this is for people. What a
 * crash cuts off is taken away at the next start, with a line that says so. A file is full at 8 MiB, and of 64 the oldest goes.
 */
import { createHash } from 'node:crypto';
import { open, readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { namesIn } from './durable-file';
import { makeFolderDurably } from './durable-folder';

export const AUDIT_EVENTS = [
  'agent_started',
  'agent_stopped',
  'let_in',
  'refused',
  'warrant',
  'authorised',
  'more_refused',
  'ownership',
  'cut_off',
  'not_written',
] as const;
export type AuditEvent = (typeof AUDIT_EVENTS)[number];
/** Names and short texts; never a secret, a path of a guest's file, or a command. */
export type AuditDetails = Readonly<Record<string, string | number | boolean | undefined>>;

export const FIRST_BEFORE = '0'.repeat(64);
const FILE_NAME = /^\d{8}\.jsonl$/;
const FILE_BYTES = 8 * 1024 * 1024;
const MAX_FILES = 64;
const MAX_WAITING = 4096;
const MAX_TEXT = 300;

export function hashOf(line: string): string {
  return createHash('sha256').update(line).digest('hex');
}

export function auditFolder(dataDir: string): string {
  return join(dataDir, 'audit');
}

/** Names of the files, the oldest first. */
export async function auditFiles(folder: string): Promise<string[]> {
  return (await namesIn(folder)).filter((name) => FILE_NAME.test(name)).sort();
}

export interface Head {
  /** Number of the line. */
  readonly seq: number;
  /** Its hash. */
  readonly head: string;
}

interface Limits {
  readonly fileBytes: number;
  readonly maxFiles: number;
}

export class AuditLog {
  readonly #folder: string;
  readonly #limits: Limits;
  readonly #waiting: string[] = [];
  readonly #onFailure: (error: unknown) => void;
  #seq: number;
  #head: string;
  #written: Head | undefined;
  #files: string[];
  #sizeBytes: number;
  #notWritten = 0;
  #flushing: Promise<void> | undefined;

  private constructor(folder: string, onFailure: (error: unknown) => void, limits: Limits, end: End) {
    this.#folder = folder;
    this.#limits = limits;
    this.#onFailure = onFailure;
    this.#seq = end.seq;
    this.#head = end.head;
    this.#written = end.seq > 0 ? { seq: end.seq, head: end.head } : undefined;
    this.#files = end.files;
    this.#sizeBytes = end.sizeBytes;
  }

  /** Opens it behind its last whole line. One process at a time: the agent holds the folder's lock. */
  static async open(
    dataDir: string,
    onFailure: (error: unknown) => void,
    limits: Limits = { fileBytes: FILE_BYTES, maxFiles: MAX_FILES },
  ): Promise<AuditLog> {
    const folder = auditFolder(dataDir);
    await makeFolderDurably(folder);
    const end = await endOf(folder);
    const log = new AuditLog(folder, onFailure, limits, end);
    if (end.cutOffBytes > 0) log.write('cut_off', { bytes: end.cutOffBytes });
    return log;
  }

  /** The last line that is on the disk: no crash takes it back, so it may be told to others, who can have all up to it checked. */
  get written(): Head | undefined {
    return this.#written;
  }

  /** Never throws and never waits: what cannot be written is counted, and the next line that can says so. */
  write(event: AuditEvent, details: AuditDetails = {}): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#notWritten += 1;
      return;
    }
    const missed = this.#notWritten;
    this.#notWritten = 0;
    if (missed > 0) this.#add('not_written', { lines: missed });
    this.#add(event, details);
    this.#flushing ??= this.#flush().finally(() => (this.#flushing = undefined));
  }

  async close(): Promise<void> {
    while (this.#flushing) await this.#flushing;
  }

  #add(event: AuditEvent, details: AuditDetails): void {
    const short = Object.fromEntries(
      Object.entries(details).map(([key, value]) => [
        key,
        typeof value === 'string' ? value.slice(0, MAX_TEXT) : value,
      ]),
    );
    this.#seq += 1;
    const line = JSON.stringify({
      seq: this.#seq,
      at: new Date().toISOString(),
      event,
      ...short,
      before: this.#head,
    });
    this.#head = hashOf(line);
    this.#waiting.push(line);
  }

  async #flush(): Promise<void> {
    // What is said in one turn goes in one write.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const lines = [...this.#waiting];
      try {
        await this.#append(`${lines.join('\n')}\n`, lines);
      } catch (error) {
        // Kept, in its order: a chain with a hole could not be told from one that was cut.
        this.#onFailure(error);
        return;
      }
      this.#waiting.splice(0, lines.length);
      const last = lines.at(-1) ?? '';
      this.#written = { seq: seqOf(last), head: hashOf(last) };
    }
  }

  async #append(text: string, lines: readonly string[]): Promise<void> {
    if (this.#files.length === 0 || this.#sizeBytes >= this.#limits.fileBytes) {
      const { seq } = JSON.parse(lines[0] ?? '{}') as { seq: number };
      this.#files.push(`${String(seq).padStart(8, '0')}.jsonl`);
      this.#sizeBytes = 0;
      while (this.#files.length > this.#limits.maxFiles)
        await rm(join(this.#folder, this.#files.shift() ?? ''), { force: true });
    }
    const path = join(this.#folder, this.#files.at(-1) ?? '');
    const file = await open(path, 'a', 0o600);
    try {
      await file.appendFile(text);
      await file.datasync();
    } catch (error) {
      // Half of it may stand there: the next attempt begins where this one did.
      await file.truncate(this.#sizeBytes).catch(() => undefined);
      throw error;
    } finally {
      await file.close();
    }
    this.#sizeBytes += Buffer.byteLength(text);
  }
}

interface End {
  readonly seq: number;
  readonly head: string;
  readonly files: string[];
  readonly sizeBytes: number;
  readonly cutOffBytes: number;
}

/** Where it ends; what stands behind the last line break is taken away. */
async function endOf(folder: string): Promise<End> {
  const files = await auditFiles(folder);
  for (let cutOffBytes = 0; ; ) {
    const name = files.at(-1);
    if (name === undefined) return { seq: 0, head: FIRST_BEFORE, files, sizeBytes: 0, cutOffBytes };
    const path = join(folder, name);
    const text = await readFile(path, 'utf8');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    cutOffBytes += Buffer.byteLength(text) - Buffer.byteLength(whole);
    if (whole === '') {
      await rm(path);
      files.pop();
      continue;
    }
    const sizeBytes = Buffer.byteLength(whole);
    if (whole !== text) await truncate(path, sizeBytes);
    const last = whole.trimEnd().split('\n').at(-1) ?? '';
    return { seq: seqOf(last), head: hashOf(last), files, sizeBytes, cutOffBytes };
  }
}

/** A line that is no JSON is the reader's to complain of; the chain goes on behind it. */
function seqOf(line: string): number {
  try {
    const { seq } = JSON.parse(line) as { seq?: unknown };
    return typeof seq === 'number' ? seq : 0;
  } catch {
    return 0;
  }
}
