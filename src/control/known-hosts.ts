/**
 * The hosts that migrations of late have named, from Temporal's visibility: there is no list of hosts anywhere else.
 */
import type { Client } from '@temporalio/client';

const LOOK_AT = 500;

export async function knownHosts(client: Client): Promise<string[]> {
  const hosts = new Set<string>();
  let seen = 0;
  for await (const { searchAttributes } of client.workflow.list({ query: 'SourceHost IS NOT NULL' })) {
    const { SourceHost, DestinationHost } = searchAttributes as Record<string, unknown[] | undefined>;
    for (const host of [SourceHost?.[0], DestinationHost?.[0]]) if (typeof host === 'string') hosts.add(host);
    if (++seen >= LOOK_AT) break;
  }
  return [...hosts].sort();
}
