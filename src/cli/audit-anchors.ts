/** The signed heads of a host's audit log that stand in the history of a migration, for `dwcp audit verify --migration`. */
import { join } from 'node:path';
import type { Command } from 'commander';
import { resolveHostId } from '../agent/host';
import { answersOf } from '../control/activity-answers';
import { DwcpError } from '../model/errors';
import type { ProcessOptions } from '../model/options';
import type { AuditVerdict } from '../store/audit-reader';
import { readIfThere } from '../store/durable-file';
import { headsAmong, type ReadHeads } from '../trust/audit-heads';
import { hostOfPem } from '../trust/host-certificate';
import { TrustFolder, trustFolderOf } from '../trust/trust-folder';
import { withClient } from './execute-workflow';

export interface SignedHeads extends ReadHeads {
  readonly hostId: string;
  readonly keyKnown: boolean;
}

/** @throws MIGRATION_UNKNOWN, also where its history has no head of this host: then nothing would be checked */
export async function signedHeads(
  command: Command,
  migrationId: string,
  { dataDir, options }: { readonly dataDir: string; readonly options: ProcessOptions },
): Promise<SignedHeads> {
  const hostId = options.hostId || (await hostIn(dataDir)) || resolveHostId(options);
  const answers = await withClient(command, (client) => answersOf(client, migrationId));
  const read = headsAmong(answers, hostId, TrustFolder.find(trustFolderOf(options)));
  if (read.heads.length > 0) return { ...read, hostId, keyKnown: read.heads.every(({ keyKnown }) => keyKnown) };
  const why = read.refused.length > 0 ? ` that counts: ${read.refused.join('; ')}` : '';
  throw new DwcpError('MIGRATION_UNKNOWN', `Migration ${migrationId} has no signed head of host ${hostId}${why}`, {
    hint: 'Name a migration that this host took part in, and the host with --host-id where its certificate lies elsewhere',
  });
}

/** What its own certificate calls the host whose folder it is. */
async function hostIn(dataDir: string): Promise<string | undefined> {
  const pem = await readIfThere(join(dataDir, 'host.pem'));
  return pem && hostOfPem(pem);
}

/** What --json says of them. */
export function tellOf(signed: SignedHeads | undefined): object {
  return signed ? { keyKnown: signed.keyKnown, refused: signed.refused } : {};
}

export function anchorsText({ anchored, tooOld, firstSeq }: AuditVerdict, signed: SignedHeads): string {
  const { hostId, keyKnown, refused, heads } = signed;
  return [
    `${anchored} of ${heads.length} heads that host ${hostId} has signed are among them, up to number ${heads.at(-1)?.seq ?? 0}`,
    ...(tooOld > 0 ? [`${tooOld} are of lines before number ${firstSeq ?? 1}, which have been rotated away`] : []),
    ...(keyKnown
      ? []
      : ['the key that they are signed with is not known here: run it with the control plane’s trust folder']),
    ...refused.map((why) => `not believed: ${why}`),
  ].join('\n');
}
