/**
 * Streams of frames for a real connection and the control channel on it, at either end, over a socket in memory: as a destination's that
 * is asked, and as a source's that has asked and is answered. The channel ends with a code, or goes on; nothing is thrown into the process.
 */
import { DwcpError } from '../src/model/errors';
import type { Connection } from '../src/transport/connection';
import { ControlChannel } from '../src/transport/control-channel';
import { readCounters } from '../src/transport/counters';
import { chunksOf } from './fuzz-bytes';
import { mutatedFrame } from './fuzz-frames';
import { MemorySocket } from './fuzz-socket';
import { describe, Finding, type Outcome, refusal, type Target } from './fuzz-target';

const TYPES = ['request', 'response', 'event', 'ping', 'pong', 'detach', 'refused'] as const;
const MOST_ASKED = 8;

export function channelTarget(): Target {
  return {
    name: 'channel',
    share: 60,
    play: async (draw, _index, told): Promise<Outcome> => {
      let ended: DwcpError | undefined;
      const faults: unknown[] = [];
      const guard = (work: () => void): void => {
        try {
          work();
        } catch (error) {
          faults.push(error);
        }
      };
      const socket = new MemorySocket(() => undefined);
      const connection: Connection = socket.connection(new Set());
      const channel = new ControlChannel(connection, {
        request: (method, { body, payload }) =>
          draw.oneIn(8)
            ? Promise.reject(new DwcpError('DISK_FULL', method))
            : Promise.resolve({ body: { ...body }, payload }),
        event: (_name, { payload }) => void readCounters(payload),
        closed: (error) => (ended = error),
      });
      const asked = Promise.allSettled(
        Array.from({ length: draw.below(MOST_ASKED) }, () => channel.request('train', {})),
      );
      const stream = Buffer.concat(
        Array.from({ length: 1 + draw.below(6) }, () => mutatedFrame(draw, draw.pick(TYPES))),
      );
      told(stream);
      try {
        for (const chunk of chunksOf(stream, draw)) socket.receive(chunk);
      } catch (error) {
        throw new Finding(`thrown into the process: ${describe(error)}`, { cause: error });
      }
      await new Promise((resolve) => setImmediate(resolve));
      guard(() => channel.destroy(new DwcpError('SESSION_LOST', 'the input is over')));
      for (const answer of await asked) if (answer.status === 'rejected') refusal(answer.reason, true);
      if (faults.length > 0) throw new Finding(`the end throws: ${describe(faults[0])}`);
      if (!ended) throw new Finding('the channel has ended, and nobody was told');
      return ended.code === 'SESSION_LOST' ? 'accepted' : refusal(ended, true);
    },
  };
}
