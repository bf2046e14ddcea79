/**
 * A host's signed word about a hand-over (src/model/word.ts), and whether one is believed: signed by the key of a certificate that the data
 * plane would believe to be that host's. Nobody between two hosts can say it in their place.
 */
import { type Said, type Word, wordSchema } from '../model/word';
import { certificateOf, openByHost, signAsHost } from './host-signed';
import type { PeerTrust } from './peer-trust';

export function sayWord(peers: Pick<PeerTrust, 'credentials'>, said: Said): string {
  return signAsHost('word', said, peers.credentials());
}

/** Why a word does not count, in words; undefined where it does. */
export function doubtOf(
  peers: Pick<PeerTrust, 'stillIs'>,
  signed: unknown,
  expected: Said & { readonly word: Word },
): string | undefined {
  if (typeof signed !== 'string') return `host ${expected.hostId} has not said "${expected.word}"`;
  const certificate = certificateOf(signed);
  if (!certificate) return 'the word has no certificate';
  if (!peers.stillIs(certificate, expected.hostId)) return `the word is not by a key of host ${expected.hostId}`;
  const said = openByHost('word', signed, certificate, wordSchema);
  if (!said) return 'the word is not signed by its certificate’s key';
  const differs = (['word', 'hostId', 'migrationId', 'vmId'] as const).find((name) => said[name] !== expected[name]);
  return differs && `the word is of another ${differs}`;
}
