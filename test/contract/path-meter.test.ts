/** What the kernel tells of real connections, as the meter of a path puts it together. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { MIB } from '../../src/model/units';
import { PathMeter } from '../../src/transport/path-meter';
import { readTcpInfo } from '../../src/transport/tcp-info';

type Streams = Parameters<PathMeter['observe']>[1];

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A connection that is written to for a second and a half. @param reads whether the other end does */
async function written(reads: boolean, look: (socket: Socket) => void): Promise<void> {
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    accepted.push(socket);
    socket.on('error', () => undefined);
    if (reads) socket.resume();
    else socket.pause();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const writing = setInterval(() => socket.writableLength < MIB && socket.write(Buffer.alloc(MIB)), 5);
  await pause(1_500);
  look(socket);
  clearInterval(writing);
  socket.destroy();
  for (const other of accepted) other.destroy();
  server.close();
}

function metered(socket: Socket, receiverBlocked: boolean): PathMeter {
  const meter = new PathMeter();
  meter.observe(performance.now() + 1_000, [{ id: 1, connection: { socket }, receiverBlocked }] as unknown as Streams);
  return meter;
}

test('sees that a receive window holds a stream, but not where the receiver says that it is behind itself', async () => {
  await written(false, (socket) => {
    expect(metered(socket, false).windowLimitedShare).toBeGreaterThan(0.5);
    expect(metered(socket, true).windowLimitedShare).toBeUndefined();
  });
});

test('sees rate of delivery, round trip and loss of a stream that flows', async () => {
  await written(true, (socket) => {
    const meter = metered(socket, false);
    expect(meter.deliveryBytesPerSecond).toBeGreaterThan(1e6);
    expect(meter.minRttMs).toBeLessThan(50);
    expect(meter.lossRatio).toBeLessThan(0.01);
    expect(readTcpInfo(socket)!.busyMs).toBeGreaterThan(0);
  });
});
