/**
 * Establishes streams between two hosts ahead of time, so that the next migration starts without handshakes.
 * `dwcp connect`.
 */
import { z } from 'zod';
import { hostIdSchema } from '../src/model/ids';
import { onDestination, onSource } from './activity-proxies';
import { Authority } from './authority';
import { failWith, parseArgument, toCoded } from './failures';

const inputSchema = z.strictObject({
  sourceHost: hostIdSchema,
  destinationHost: hostIdSchema,
  streams: z.int().min(1).max(256),
});
export type ConnectInput = z.infer<typeof inputSchema>;

export async function connectHosts(argument: ConnectInput): Promise<{ idle: number }> {
  const { sourceHost, destinationHost, streams } = parseArgument(inputSchema, argument);
  const authority = new Authority({ mode: 'link', sourceHost, destinationHost });
  try {
    const grantCall = { activityId: 'grant-peer', summary: `${destinationHost}: let ${sourceHost} in` };
    const reachedAt = await onDestination(destinationHost, 'brief', grantCall, authority).grantPeer({ sourceHost });
    const destination = { ...reachedAt, hostId: destinationHost };
    const connectCall = {
      activityId: 'connect-peer',
      summary: `${sourceHost} → ${destinationHost}: ${streams} streams`,
    };
    return await onSource(sourceHost, 'quick', connectCall, authority).connectPeer({ destination, streams });
  } catch (error) {
    throw failWith(toCoded(error));
  }
}
