/** A byte stream of somebody else through a connection: what is slow to take it is waited for, for as long as it takes. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Connection, FrameHandler } from '../../src/transport/connection';
import { buildFrame, openFrame, readHeader } from '../../src/transport/frame';
import { Tunnel } from '../../src/transport/tunnel';

test('a socket that is slow to take it is listened to once, however often it is waited for', async () => {
  let deliver: FrameHandler = () => undefined;
  const other = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  const connection = {
    use: (_allowed: unknown, onFrame: FrameHandler) => (deliver = onFrame),
    hold: () => undefined,
    write: () => Promise.resolve(),
    destroy: () => undefined,
    socket: other,
    closed: false,
  } as unknown as Connection;
  const taken: Buffer[] = [];
  const slow = new Duplex({
    writableHighWaterMark: 1,
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      taken.push(chunk);
      setImmediate(done);
    },
  });
  new Tunnel(connection, () => undefined).join(slow as unknown as Socket);
  const listeners = (): number => slow.listenerCount('close') + slow.listenerCount('drain');
  const before = listeners();
  for (let index = 0; index < 30; index += 1) {
    const frame = buildFrame('tunnel', 0, undefined, Buffer.from([index]));
    const drained = new Promise((resolve) => slow.once('drain', resolve));
    deliver({ frame: openFrame(readHeader(frame, new Set(['tunnel'])), frame), run: undefined });
    await drained;
  }
  expect([Buffer.concat(taken).length, listeners()]).toEqual([30, before]);
});
