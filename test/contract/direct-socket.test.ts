/** Sockets that read straight into batch memory: all arrives, and nothing is written to memory that is no longer theirs. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, connect as tlsConnect } from 'node:tls';
import { DwcpError } from '../../src/model/errors';
import { Connection, type Received } from '../../src/transport/connection';
import { directSocket, directTlsSocket } from '../../src/transport/direct-socket';
import { type FrameType, HEADER_BYTES, sealFrame } from '../../src/transport/frame';
import { Slab } from '../../src/transport/slab';
import { makeHostCertificate, makeHostKey } from '../../src/trust/host-certificate';

const BATCHES = new Set<FrameType>(['batch']);
const META_BYTES = 48;

function batch(sequence: number, payloadBytes: number, value: number): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + META_BYTES + payloadBytes, value);
  sealFrame(frame, 'batch', sequence, META_BYTES, payloadBytes);
  return frame;
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
};

describe.each([
  ['plain', false],
  ['TLS', true],
])('a socket that reads into batch memory: %s', (_kind, secure) => {
  const dialTo = (port: number): Socket =>
    secure ? tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false }) : connect(port, '127.0.0.1');
  let secureContext: SecureContext;
  beforeAll(async () => {
    const key = await makeHostKey();
    secureContext = createSecureContext({ key, cert: await makeHostCertificate('a', key) });
  });
  let server: Server;
  let client: Socket;
  let connection: Connection;
  let slab: Slab;
  let received: Received[];
  let ended: DwcpError | undefined;

  beforeEach(async () => {
    slab = new Slab(512 * 1024);
    received = [];
    ended = undefined;
    const accepted = new Promise<void>((resolve) => {
      server = createServer({ pauseOnConnect: true }, (socket) => {
        connection = new Connection(
          secure ? directTlsSocket(socket, { secureContext }) : directSocket(socket),
          BATCHES,
        );
        connection.use(
          BATCHES,
          (frame) => received.push(frame),
          (error) => (ended = error),
          slab,
        );
        resolve();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    client = dialTo((server.address() as { port: number }).port).on('error', () => undefined);
    await accepted;
  });

  afterEach(() => {
    client.destroy();
    connection.destroy(new DwcpError('SESSION_LOST', 'test over'));
    server.close();
  });

  it('waits while no memory is free, and loses no byte of what came meanwhile', async () => {
    for (let sequence = 1; sequence <= 40; sequence += 1) client.write(batch(sequence, 100_000, sequence));
    await until(() => connection.blocked);
    const runs = received.map(({ run }) => run!.offset);
    expect(new Set(runs).size).toBe(received.length);
    for (let at = 0; at < 40; at += 1) {
      await until(() => received.length > at);
      const { frame, run } = received[at]!;
      expect(frame.sequence).toBe(at + 1);
      expect(frame.payload.length === 100_000 && frame.payload.every((byte) => byte === at + 1)).toBe(true);
      slab.free(run!);
    }
    expect(connection.receivedBytes).toBe(40 * (HEADER_BYTES + META_BYTES + 100_000));
    expect(slab.freeBytes).toBe(slab.sizeBytes);
  });

  it.each([
    [
      'its connection is ended here in the middle of a frame',
      batch(1, 200_000, 1),
      (): void => connection.destroy(new DwcpError('SUPERSEDED', 'ended')),
    ],
    [
      'a damaged frame has ended its connection',
      Buffer.concat([batch(1, 1000, 1).fill(9, HEADER_BYTES, HEADER_BYTES + 1), batch(2, 200_000, 2)]),
      (): void => undefined,
    ],
  ])('is not written to any more when %s', async (_, sent, act) => {
    client.write(sent.subarray(0, 100_000));
    await until(() => connection.receivedBytes >= 1000);
    act();
    await until(() => ended !== undefined);
    expect(slab.freeBytes).toBe(slab.sizeBytes);
    const memory = Buffer.from(slab.memory).fill(0);
    client.write(sent.subarray(100_000));
    client.write(Buffer.alloc(300_000, 5));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(memory.every((byte) => byte === 0)).toBe(true);
  });

  describe('with a frame that has begun', () => {
    /** Another connection to the same slab, with less patience. */
    const impatient = async (): Promise<{ client: Socket; ended: () => DwcpError | undefined }> => {
      let reason: DwcpError | undefined;
      const accepted = new Promise<void>((resolve) => {
        server.once('connection', (socket) => {
          connection.destroy(new DwcpError('SESSION_LOST', 'not this one'));
          connection = new Connection(
            secure ? directTlsSocket(socket, { secureContext }) : socket.resume(),
            BATCHES,
            300,
          );
          connection.use(
            BATCHES,
            (frame) => received.push(frame),
            (error) => (reason = error),
            slab,
          );
          resolve();
        });
      });
      const other = dialTo((server.address() as { port: number }).port).on('error', () => undefined);
      await accepted;
      return { client: other, ended: () => reason };
    };

    it('ends where that does not go on, and gives its memory back', async () => {
      server.removeAllListeners('connection');
      const { client: other, ended: end } = await impatient();
      other.write(batch(1, 200_000, 1).subarray(0, 1000));
      await until(() => slab.freeBytes < slab.sizeBytes);
      await until(() => end() !== undefined);
      expect(end()).toMatchObject({ code: 'PEER_UNREACHABLE' });
      expect(slab.freeBytes).toBe(slab.sizeBytes);
      other.destroy();
    });

    it('waits for one that comes slowly', async () => {
      server.removeAllListeners('connection');
      const { client: other, ended: end } = await impatient();
      const frame = batch(1, 200_000, 1);
      for (let at = 0; at < frame.length; at += 20_000) {
        other.write(frame.subarray(at, at + 20_000));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      await until(() => received.length === 1 || end() !== undefined);
      expect([received.length, end()]).toEqual([1, undefined]);
      other.destroy();
    });
  });

  it('ends when the other side does', async () => {
    client.end(batch(1, 1000, 1));
    await until(() => ended !== undefined);
    expect([received.length, ended?.code]).toEqual([1, 'PEER_UNREACHABLE']);
  });
});
