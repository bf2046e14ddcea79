/** The audit log: a chain that nobody changes unseen, that a crash does not break, and that nobody fills from outside. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { auditedAdmission } from '../../src/agent/audited-admission';
import { DwcpError } from '../../src/model/errors';
import { AuditLog, auditFolder } from '../../src/store/audit-log';
import { type AuditLine, readAudit, verifyAudit } from '../../src/store/audit-reader';
import type { Connection } from '../../src/transport/connection';
import type { Hello } from '../../src/transport/hello';
import { temporaryFolder } from '../helpers/data';

const fail = (error: unknown): never => {
  throw error;
};

async function written(events: number, limits?: Parameters<typeof AuditLog.open>[2]): Promise<string> {
  const dataDir = temporaryFolder();
  const log = await AuditLog.open(dataDir, fail, limits);
  for (let event = 1; event <= events; event += 1) {
    log.write('ownership', { vmId: `vm-${event}`, state: 'claimed', migrationId: 'm' });
    if (event % 3 === 0) await log.close();
  }
  await log.close();
  return dataDir;
}

const filesOf = (dataDir: string): string[] =>
  readdirSync(auditFolder(dataDir))
    .sort()
    .map((name) => join(auditFolder(dataDir), name));

async function linesOf(dataDir: string): Promise<AuditLine[]> {
  const lines: AuditLine[] = [];
  for await (const { line } of readAudit(dataDir)) lines.push(line);
  return lines;
}

test('goes on behind its last line when it is opened again, and holds', async () => {
  const dataDir = await written(5);
  const again = await AuditLog.open(dataDir, fail);
  again.write('agent_stopped');
  await again.close();
  expect(await verifyAudit(dataDir)).toMatchObject({
    lines: 6,
    firstSeq: 1,
    head: again.written?.head,
    fault: undefined,
  });
  expect((await linesOf(dataDir)).map(({ seq, event }) => [seq, event]).at(-1)).toEqual([6, 'agent_stopped']);
  expect(statSync(filesOf(dataDir)[0]!).mode & 0o077).toBe(0);
});

test.each([
  ['a word of a line is changed', (text: string) => text.replace('vm-3', 'vm-9')],
  ['a line is taken out', (text: string) => text.replace(/^.*vm-3.*\n/m, '')],
  ['a line is put in twice', (text: string) => text.replace(/^(.*vm-3.*\n)/m, '$1$1')],
  ['two lines change places', (text: string) => text.replace(/^(.*vm-3.*\n)(.*\n)/m, '$2$1')],
  ['a line is cut off', (text: string) => text.replace(/^(.*vm-3).*\n/m, '$1\n')],
])('does not hold where %s', async (_, change) => {
  const dataDir = await written(6);
  const [path] = filesOf(dataDir);
  const text = readFileSync(path!, 'utf8');
  expect(change(text)).not.toBe(text);
  writeFileSync(path!, change(text));
  expect((await verifyAudit(dataDir)).fault).toMatch(/^00000001\.jsonl, line [34]: /);
});

test('newest lines that were taken away are missed where a head was noted', async () => {
  const dataDir = await written(6);
  const { head } = await verifyAudit(dataDir);
  expect((await verifyAudit(dataDir, head)).fault).toBeUndefined();
  const [path] = filesOf(dataDir);
  writeFileSync(path!, readFileSync(path!, 'utf8').replace(/^.*vm-6.*\n/m, ''));
  expect((await verifyAudit(dataDir)).fault).toBeUndefined();
  expect((await verifyAudit(dataDir, head)).fault).toContain('is not there');
});

test('what a crash has cut off at any byte is taken away at the next start, which says so, and all before it holds', async () => {
  const whole = await written(3);
  const bytes = readFileSync(filesOf(whole)[0]!);
  const lastBegins = bytes.lastIndexOf('\n', bytes.length - 2) + 1;
  for (let length = lastBegins; length < bytes.length; length += 17) {
    const dataDir = await written(3);
    truncateSync(filesOf(dataDir)[0]!, length);
    const log = await AuditLog.open(dataDir, fail);
    log.write('agent_started');
    await log.close();
    expect((await verifyAudit(dataDir)).fault).toBeUndefined();
    const events = (await linesOf(dataDir)).map(({ event }) => event);
    expect(events).toEqual(['ownership', 'ownership', ...(length > lastBegins ? ['cut_off'] : []), 'agent_started']);
  }
});

test('is bounded: full files follow one another, the oldest goes, and the rest holds', async () => {
  const dataDir = await written(60, { fileBytes: 600, maxFiles: 4 });
  expect(filesOf(dataDir)).toHaveLength(4);
  const { fault, firstSeq, lines } = await verifyAudit(dataDir);
  expect([fault, (firstSeq ?? 0) + lines - 1]).toEqual([undefined, 60]);
  rmSync(filesOf(dataDir)[1]!);
  expect((await verifyAudit(dataDir)).fault).toMatch(/line 1: number \d+ follows on \d+$/);
});

test('lines that could not be written come later, in their order, and nothing of a half written one stays', async () => {
  const dataDir = temporaryFolder();
  const failures: unknown[] = [];
  const log = await AuditLog.open(dataDir, (error) => failures.push(error));
  log.write('agent_started');
  await log.close();
  const [path] = filesOf(dataDir);
  renameSync(path!, `${path!}.aside`);
  mkdirSync(path!);
  log.write('ownership', { vmId: 'a' });
  await log.close();
  expect(failures).toHaveLength(1);
  rmdirSync(path!);
  renameSync(`${path!}.aside`, path!);
  log.write('ownership', { vmId: 'b' });
  await log.close();
  expect((await linesOf(dataDir)).map(({ vmId }) => vmId)).toEqual([undefined, 'a', 'b']);
});

test('who is let in is one line a session, who is refused one with its code; a flood of refusals is counted, not written', () => {
  const lines: unknown[][] = [];
  let refusing = false;
  const { admit } = auditedAdmission({ write: (event, details) => void lines.push([event, details]) }, () => {
    if (refusing) throw new DwcpError('GRANT_INVALID', 'no');
    return { welcome: { hostId: 'b', release: '0' }, attach: () => undefined };
  });
  const connection = { socket: { remoteAddress: '127.0.0.9' } } as Connection;
  const hello = { role: 'control', stream: 0, sessionId: 'm-1', sourceHost: 'a' } as Hello;
  admit(hello, connection);
  for (let stream = 1; stream < 50; stream += 1) admit({ ...hello, role: 'data', stream }, connection);
  expect(lines).toEqual([['let_in', { role: 'control', sessionId: 'm-1', sourceHost: 'a', address: '127.0.0.9' }]]);
  refusing = true;
  for (let attempt = 0; attempt < 1000; attempt += 1) expect(() => admit(hello, connection)).toThrow('no');
  expect(lines[1]).toMatchObject(['refused', { code: 'GRANT_INVALID', address: '127.0.0.9' }]);
  // A minute may end in the midst of it.
  expect(lines.length).toBeLessThan(125);
});
