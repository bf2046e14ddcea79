/**
 * How activities have a host's word signed (src/trust/host-words.ts); undefined where a host signs none.
 */
import type { Word } from '../src/model/word';

export type SayWord = (word: Word, of: { readonly migrationId: string; readonly vmId: string }) => string;
