/** `dwcp audit show | verify`: what happened on this host, from its audit log. Reads the files; the agent need not run. */
import type { Command } from 'commander';
import { DwcpError, messageOf } from '../../model/errors';
import { PROCESS_OPTIONS } from '../../model/options';
import { type AuditLine, type AuditVerdict, readAudit, verifyAudit } from '../../store/audit-reader';
import { anchorsText, type SignedHeads, signedHeads, tellOf } from '../audit-anchors';
import type { Flags } from '../flags';
import { addOptions } from '../settings';
import { PLACE, placeOf } from './place';

/** What every line has, or is shown otherwise. */
const FRAME = new Set(['seq', 'at', 'event', 'before']);

export function addAuditCommands(program: Command): void {
  const audit = program
    .command('audit')
    .description('Who was let in and refused, who owned a VM when: this host’s audit log');

  addOptions(
    audit
      .command('show')
      .description('Print it, the oldest line first')
      .option('--vm <id>', 'only of this VM')
      .option('--event <name>', 'only of this kind')
      .option('--since <time>', 'only from this time on (ISO 8601)'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const sinceMs = sinceOf(textIn(flags, 'since'));
    try {
      for await (const { line } of readAudit(dataDir)) {
        if (flags.vm !== undefined && line.vmId !== flags.vm) continue;
        if (flags.event !== undefined && line.event !== flags.event) continue;
        if (Date.parse(line.at) < sinceMs) continue;
        output.emit({ ...line, event: 'audit', kind: line.event }, () => textOf(line));
      }
    } catch (error) {
      throw broken(messageOf(error));
    }
  });

  addOptions(
    audit
      .command('verify')
      .description('Check that no line was changed, taken out or put in')
      .option(
        '--head <hash>',
        'hash of a line that was noted before, by an earlier `dwcp audit verify`: it has to be there',
      )
      .option('--migration <id>', 'a migration of this host: the heads that it has signed meanwhile have to be there'),
    PROCESS_OPTIONS,
    [...PLACE, 'trustDir'],
  ).action(async (flags: Flags, command: Command) => {
    const { dataDir, output, options } = placeOf(flags, command);
    const migrationId = textIn(flags, 'migration');
    const signed =
      migrationId === undefined ? undefined : await signedHeads(command, migrationId, { dataDir, options });
    const verdict = await verifyAudit(dataDir, textIn(flags, 'head'), signed?.heads);
    if (verdict.fault !== undefined) throw broken(verdict.fault, signed);
    output.emit({ event: 'audit-verified', ...verdict, fault: undefined, ...tellOf(signed) }, () =>
      [verdictText(verdict, dataDir), ...(signed ? [anchorsText(verdict, signed)] : [])].join('\n'),
    );
  });
}

function sinceOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const ms = Date.parse(text);
  if (Number.isNaN(ms))
    throw new DwcpError('INVALID_INPUT', `--since ${text} is no time`, {
      hint: 'Give one as 2026-11-26T22:00:00Z',
    });
  return ms;
}

function textIn(flags: Flags, name: string): string | undefined {
  const value = flags[name];
  return typeof value === 'string' ? value : undefined;
}

function textOf(line: AuditLine): string {
  const rest = Object.entries(line).filter(([key]) => !FRAME.has(key));
  return [
    line.at,
    line.event.padEnd(14),
    ...rest.map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`),
  ].join(' ');
}

function verdictText({ head, lines, firstSeq }: AuditVerdict, dataDir: string): string {
  return head === undefined
    ? `no audit log under ${dataDir}`
    : `${lines} lines from number ${firstSeq ?? 1} on, each behind the one before; ` +
        `the last is ${head}: note it elsewhere, and give it to --head next time`;
}

function broken(what: string, signed?: SignedHeads): DwcpError {
  const doubt =
    signed && signed.heads.length > 0 && !signed.keyKnown ? '; the key of the signed heads is not known here' : '';
  return new DwcpError('JOURNAL_CORRUPT', `The audit log does not hold: ${what}${doubt}`, {
    hint: 'Keep the files as they are. What comes before that place is as it was written; who can write them is whom to ask',
  });
}
