/**
 * Brings the dictionary that a VM goes with into use for a session: the destination has it, or is sent it once, and says that it is
 * active before the first frame is packed with it. Without one, or where anything of this fails, frames go without.
 */
import { type SharedDictionary, shareDictionary } from '../../encoder/trained-dictionary';
import { toDwcpError } from '../../model/errors';
import type { DictionaryKey } from '../../store/dictionaries';
import type { SendingSession } from '../../transport/sending-session';
import { dictionaryAnsweredSchema, readBody } from '../protocol';
import type { SourceMigration } from './source-migration';

export async function activeDictionary(
  migration: SourceMigration,
  session: SendingSession,
  key: DictionaryKey | undefined,
): Promise<SharedDictionary | undefined> {
  if (key === undefined) return undefined;
  const { dictionaries, explain } = migration.context;
  try {
    const current = await dictionaries.current(key);
    if (!current) return undefined;
    const { hash, bytes } = current.dictionary;
    const ask = async (payload?: Buffer): Promise<boolean> =>
      readBody(dictionaryAnsweredSchema, await session.control.request('dictionary', { hash }, payload)).active;
    const active = (await ask()) || (await ask(bytes));
    explain?.(
      migration.migrationId,
      `dictionary ${key.vmType} version ${current.described.version}: ${active ? 'active on both sides' : 'refused by the destination'}`,
    );
    return active ? shareDictionary(current.dictionary) : undefined;
  } catch (error) {
    const reason = toDwcpError(error, 'INTERNAL');
    if (session.ended) throw reason;
    explain?.(migration.migrationId, `no dictionary: ${reason.code}: ${reason.message}`);
    return undefined;
  }
}
