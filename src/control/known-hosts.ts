/**
 * The hosts that migrations of late have named, from Temporal's visibility: there is no list of hosts anywhere else.
 */
import type { Client } from '@temporalio/client';
import { readAttribute } from './search-attributes';

const LOOK_AT = 500;

export async function knownHosts(client: Client): Promise<string[]> {
  const hosts = new Set<string>();
  let seen = 0;
  for await (const { typedSearchAttributes } of client.workflow.list({ query: 'SourceHost IS NOT NULL' })) {
    for (const name of ['SourceHost', 'DestinationHost'] as const) {
      const host = readAttribute(typedSearchAttributes, name);
      if (host !== undefined) hosts.add(host);
    }
    if (++seen >= LOOK_AT) break;
  }
  return [...hosts].sort();
}
