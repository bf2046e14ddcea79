/**
 * Reads a host's audit log and says whether its chain holds: every line names the hash of the one before, and is counted. Taking away
 * the newest lines, or writing all of them anew, is seen only against heads that were noted elsewhere. Writing is audit-log.ts's.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { auditFiles, auditFolder, FIRST_BEFORE, type Head, hashOf } from './audit-log';

const lineSchema = z.looseObject({
  seq: z.int().min(1),
  at: z.iso.datetime(),
  event: z.string(),
  before: z.string().regex(/^[0-9a-f]{64}$/),
});
export type AuditLine = z.infer<typeof lineSchema>;

export interface AuditVerdict {
  readonly lines: number;
  /** Number of the oldest line that is there: what came before has been rotated away. */
  readonly firstSeq: number | undefined;
  /** Hash of the newest line. */
  readonly head: string | undefined;
  /** Of the signed heads: how many are there, and how many are of lines that have been rotated away. */
  readonly anchored: number;
  readonly tooOld: number;
  /** The first place where the chain does not hold. */
  readonly fault: string | undefined;
}

interface Read {
  readonly line: AuditLine;
  readonly hash: string;
}

/** All lines, the oldest first. @throws Error that names file and line of the first that does not follow on the one before */
export async function* readAudit(dataDir: string): AsyncGenerator<Read> {
  const folder = auditFolder(dataDir);
  let before: { readonly seq: number; readonly hash: string } | undefined;
  for (const name of await auditFiles(folder)) {
    const texts = (await readFile(join(folder, name), 'utf8')).split('\n');
    if (texts.at(-1) === '') texts.pop();
    for (const [index, text] of texts.entries()) {
      const line = parsed(text);
      const where = `${name}, line ${index + 1}`;
      if (!line) throw new Error(`${where}: damaged or cut off`);
      const expected = before ?? (line.seq === 1 ? { seq: 0, hash: FIRST_BEFORE } : undefined);
      if (expected && line.seq !== expected.seq + 1)
        throw new Error(`${where}: number ${line.seq} follows on ${expected.seq}`);
      if (expected && line.before !== expected.hash)
        throw new Error(`${where}: the line before it is not the one that it was written behind`);
      const hash = hashOf(text);
      before = { seq: line.seq, hash };
      yield { line, hash };
    }
  }
}

function parsed(text: string): AuditLine | undefined {
  try {
    return lineSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** A head that the host has signed, and when. */
export interface Anchor extends Head {
  readonly at: string;
}

/**
 * @param noted a head that was noted elsewhere: it has to be there
 * @param anchors what the host has signed: so has each that is not too old
 */
export async function verifyAudit(
  dataDir: string,
  noted?: string,
  anchors: readonly Anchor[] = [],
): Promise<AuditVerdict> {
  let [lines, firstSeq, lastSeq, head, seen]: [number, number | undefined, number, string | undefined, boolean] = [
    0,
    undefined,
    0,
    undefined,
    false,
  ];
  const signedAt = new Map<number, Anchor[]>();
  for (const anchor of anchors) signedAt.set(anchor.seq, [...(signedAt.get(anchor.seq) ?? []), anchor]);
  let fault: string | undefined;
  let anchored = 0;
  try {
    for await (const { line, hash } of readAudit(dataDir)) {
      firstSeq ??= line.seq;
      lastSeq = line.seq;
      lines += 1;
      head = hash;
      seen ||= hash === noted;
      const signed = signedAt.get(line.seq) ?? [];
      const other = signed.find((anchor) => anchor.head !== hash);
      if (other)
        throw new Error(
          `line number ${line.seq} is not the one that was signed at ${other.at}: the log was written anew`,
        );
      anchored += signed.length;
    }
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error);
  }
  const newer = anchors.find(({ seq }) => seq > lastSeq);
  if (fault === undefined && newer)
    fault = `line number ${newer.seq}, signed at ${newer.at}, is not there: newer lines were taken away`;
  if (fault === undefined && noted !== undefined && !seen)
    fault = `the line ${noted.slice(0, 16)}… is not there: newer lines were taken away, or it was rotated away`;
  const tooOld = anchors.filter(({ seq }) => seq < (firstSeq ?? 0)).length;
  return { lines, firstSeq, head, anchored, tooOld, fault };
}
