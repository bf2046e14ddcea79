/**
 * What every transport promises to the sync above it: each batch arrives once or is reported lost, whatever happens to
 * streams; requests are answered or fail with a code; hostile bytes end a session with a code and touch nothing.
 */
import { connect, type Socket } from 'node:net';
import { freePort } from '../../src/control/embedded-server';
import { DwcpError } from '../../src/model/errors';
import { buildFrame } from '../../src/transport/frame';
import { mintGrant } from '../../src/transport/grants';
import { SendingSession } from '../../src/transport/sending-session';
import { TokenBucket } from '../../src/transport/token-bucket';
import { Relay } from '../helpers/proxy';
import { until } from '../helpers/waiting';
import { at, CountingSupplier, KEY, type Lab, openLab } from './transport-lab';

/** By the other side. */
function ended(socket: Socket): boolean {
  return socket.readableEnded || socket.destroyed;
}

export function transportSuite(name: string, security?: () => Promise<Parameters<typeof openLab>[0]>): void {
  describe(`transport contract: ${name}`, () => {
    let lab: Lab;
    beforeEach(async () => {
      lab = await openLab(await security?.());
    });
    afterEach(() => lab.close());
    const never = new AbortController().signal;

    it('answers requests with body and payload, and carries the code of what the other side threw', async () => {
      const session = await lab.open();
      const answer = await session.control.request('echo', { hello: 'there' }, Buffer.from('bytes'));
      expect(answer.body.hello).toBe('there');
      expect(answer.payload.toString()).toBe('bytes');
      await expect(session.control.request('other', {})).rejects.toMatchObject({
        code: 'DISK_FULL',
        side: 'destination',
      });
      session.close();
    });

    it('knows from the kernel what paces its connections, and their round trip', async () => {
      const session = await lab.open();
      await session.establish(2);
      expect(session.congestionControl).toMatch(/^[a-z]/);
      await session.transfer(new CountingSupplier(20, 40_000), never);
      while (session.stats.paths[0]?.rttMs === session.rttMs) await new Promise((resolve) => setTimeout(resolve, 50));
      expect(session.stats.paths[0]?.rttMs).toBeLessThan(100);
      session.close();
    });

    it('delivers every batch exactly once over many streams, and gives every buffer back', async () => {
      const session = await lab.open();
      await session.establish(16);
      const supplier = new CountingSupplier(300, 40_000);
      await session.transfer(supplier, never);
      expect(supplier.verifiedBatches).toBe(300);
      expect(supplier.heldRuns).toBe(0);
      expect([...lab.received.values()].every((times) => times === 1)).toBe(true);
      expect(lab.received.size).toBe(300);
      session.close();
    });

    it('replaces killed streams and sends again just what they had not confirmed', async () => {
      const session = await lab.open();
      session.setBucket(new TokenBucket(12e6));
      await session.establish(8);
      const supplier = new CountingSupplier(200, 100_000);
      const done = session.transfer(supplier, never);
      await new Promise((resolve) => setTimeout(resolve, 400));
      const streams = [...lab.accepted].slice(1, 5);
      for (const socket of streams) socket.destroy();
      await done;
      expect(supplier.verifiedBatches).toBe(200);
      expect(supplier.lostIds.length).toBeGreaterThan(0);
      expect(supplier.lostIds.length).toBeLessThanOrEqual(4 * 12);
      expect(session.replacedStreams).toBeGreaterThanOrEqual(4);
      expect(supplier.heldRuns).toBe(0);
      session.close();
    });

    it('ends the transfer with SESSION_LOST when the link is cut, and a new session goes on', async () => {
      const session = await lab.open();
      session.setBucket(new TokenBucket(5e6));
      await session.establish(4);
      const supplier = new CountingSupplier(100, 100_000);
      const done = session.transfer(supplier, never);
      await new Promise((resolve) => setTimeout(resolve, 300));
      lab.listener.dropConnections();
      await expect(done).rejects.toMatchObject({ code: 'SESSION_LOST' });
      const again = await lab.open();
      await again.establish(4);
      const rest = new CountingSupplier(20, 1000);
      await again.transfer(rest, never);
      expect(rest.verifiedBatches).toBe(20);
      again.close();
    });

    it('uses two paths at once, and goes on over one when the other is lost', async () => {
      const relay = new Relay({ host: '127.0.0.1', port: await freePort() }, { host: '127.0.0.1', port: lab.port });
      await relay.listen();
      const session = await lab.open('s1', [relay.port]);
      session.setBucket(new TokenBucket(12e6));
      expect(await session.establish(4)).toBe(8);
      const supplier = new CountingSupplier(200, 100_000);
      const done = session.transfer(supplier, never);
      await new Promise((resolve) => setTimeout(resolve, 400));
      const before = session.stats.paths.map(({ arrivedBytes }) => arrivedBytes);
      expect(Math.min(...before)).toBeGreaterThan(0);
      await relay.close();
      await done;
      const [first, second] = session.stats.paths;
      expect(supplier.verifiedBatches).toBe(200);
      expect(supplier.heldRuns).toBe(0);
      expect(second?.out).toBe(true);
      expect(first?.openStreams).toBe(4);
      session.close();
    });

    it('goes out from the address of this host that the path names', async () => {
      const connection = await lab.pool.connect(
        { ...at(lab.port), localAddress: '127.0.0.9' },
        {
          role: 'control',
          stream: 0,
          sessionId: 's1',
          epoch: 1,
          sourceHost: 'a',
          grant: mintGrant(KEY, { purpose: 'session', subject: 's1', holder: 'a' }, 60_000),
        },
      );
      expect([...lab.accepted].map(({ remoteAddress }) => remoteAddress)).toEqual(['127.0.0.9']);
      connection.destroy(new DwcpError('SESSION_LOST', 'test over'));
    });

    it('opens a stream that is lost again as soon as the path is back', async () => {
      const relay = new Relay({ host: '127.0.0.1', port: await freePort() }, { host: '127.0.0.1', port: lab.port });
      await relay.listen();
      const session = await lab.open('s1', [relay.port]);
      session.setBucket(new TokenBucket(4e6));
      await session.establish(3);
      const supplier = new CountingSupplier(150, 100_000);
      const done = session.transfer(supplier, never);
      await relay.close();
      await new Promise((resolve) => setTimeout(resolve, 700));
      expect(session.stats.paths[1]?.openStreams).toBe(0);
      await relay.listen();
      const backAt = performance.now();
      while (session.stats.paths[1]?.openStreams !== 3) await new Promise((resolve) => setTimeout(resolve, 20));
      expect(performance.now() - backAt).toBeLessThan(3000);
      await done;
      expect(supplier.verifiedBatches).toBe(150);
      session.close();
    });

    it('keeps to the bandwidth limit over all streams, and takes a new one while it runs', async () => {
      const session = await lab.open();
      const bucket = new TokenBucket(8e6);
      session.setBucket(bucket);
      await session.establish(8);
      const supplier = new CountingSupplier(80, 100_000);
      const startedAt = performance.now();
      const done = session.transfer(supplier, never);
      setTimeout(() => bucket.setRate(80e6), 500);
      await done;
      const bytesPerSecond = 8e6 / ((performance.now() - startedAt) / 1000);
      expect(bytesPerSecond).toBeLessThan(8e6 / 0.5);
      expect(bytesPerSecond).toBeGreaterThan(1e6);
      session.close();
    });

    it('uses streams again that an earlier session or connect has left in the pool', async () => {
      const peer = at(lab.port);
      const grant = mintGrant(KEY, { purpose: 'peer', subject: 'a', holder: 'a' }, 60_000);
      expect(
        await lab.pool.establish(
          peer,
          { role: 'idle', sessionId: 'a', epoch: 0, stream: 0, sourceHost: 'a', grant },
          9,
        ),
      ).toBe(9);
      const dialled = lab.accepted.size;
      const session = await lab.open();
      await session.establish(8);
      expect(lab.accepted.size).toBe(dialled);
      expect(lab.pool.idleCount(peer)).toBe(0);
      const supplier = new CountingSupplier(10, 1000);
      await session.transfer(supplier, never);
      session.close();
      expect(lab.pool.idleCount(peer)).toBe(9);
      const next = await lab.open('s2');
      await next.establish(8);
      expect(lab.accepted.size).toBe(dialled);
      next.close();
    });

    it('opens a session over another connection where what an earlier one had on its way still comes', async () => {
      const session = await lab.open();
      const [control] = [...lab.accepted];
      // The other side has not heard yet that it is over.
      control!.write(buildFrame('ping', 1));
      session.close();
      const next = await lab.open('s2');
      await next.establish(2);
      const supplier = new CountingSupplier(10, 1000);
      await next.transfer(supplier, never);
      expect(supplier.verifiedBatches).toBe(10);
      next.close();
    });

    it('lets nobody in without a grant of this agent, for this session, that has not expired', async () => {
      const peer = at(lab.port);
      const hello = {
        sessionId: 's1',
        epoch: 1,
        sourceHost: 'a',
        grant: mintGrant(KEY, { purpose: 'session', subject: 's1', holder: 'a' }, 60_000),
      };
      const wrongKey = mintGrant(Buffer.alloc(32, 8), { purpose: 'session', subject: 's1', holder: 'a' }, 60_000);
      const expired = mintGrant(KEY, { purpose: 'session', subject: 's1', holder: 'a' }, -1);
      const stretched = { ...expired, expiresAtMs: Date.now() + 60_000 };
      for (const grant of [wrongKey, expired, stretched]) {
        await expect(SendingSession.open(lab.pool, [peer], { ...hello, grant })).rejects.toMatchObject({
          code: 'GRANT_INVALID',
        });
      }
    });

    it('is not shut by those who open connections and say nothing', async () => {
      const silent: Socket[] = [];
      const openMany = async (count: number, localAddress: string): Promise<void> => {
        const opening = Array.from(
          { length: count },
          () =>
            new Promise<void>((resolve) => {
              const socket = connect({ host: '127.0.0.1', port: lab.port, localAddress }, () => resolve());
              silent.push(socket.on('error', () => resolve()));
            }),
        );
        await Promise.all(opening);
      };
      for (let host = 1; host <= 10; host += 1) await openMany(host === 1 ? 600 : 64, `127.0.0.${host}`);
      const session = await lab.open();
      expect(await session.control.request('echo', { hello: 1 })).toMatchObject({ body: { hello: 1 } });
      await session.establish(8);
      expect(lab.listener.unprovenCount).toBeLessThanOrEqual(512);
      session.close();
      for (const socket of silent) socket.destroy();
      await until(20_000, 'those that are gone are counted no more', () => lab.listener.unprovenCount === 0);
    });

    it('ends the oldest that says nothing, of the address that has most of them', async () => {
      const open = (localAddress: string): Promise<Socket> =>
        new Promise((resolve) => {
          const socket = connect({ host: '127.0.0.1', port: lab.port, localAddress }, () => resolve(socket));
          socket.on('error', () => undefined);
        });
      const one = await open('127.0.0.2');
      const crowd: Socket[] = [];
      for (let count = 0; count < 70; count += 1) crowd.push(await open('127.0.0.3'));
      await until(5_000, 'the oldest six have been ended', () => crowd.slice(0, 6).every((socket) => ended(socket)));
      expect([one, ...crowd.slice(6)].filter((socket) => ended(socket))).toEqual([]);
      for (const socket of [one, ...crowd]) socket.destroy();
    });

    it('ends a session with PROTOCOL_VIOLATION when a data stream sends what it may not', async () => {
      const session = await lab.open();
      await session.establish(2);
      const supplier = new CountingSupplier(1000, 100_000);
      session.setBucket(new TokenBucket(2e6));
      const done = session.transfer(supplier, never);
      const connection = await lab.pool.connect(at(lab.port), {
        role: 'data',
        stream: 99,
        sessionId: 's1',
        epoch: 0,
        sourceHost: 'a',
        grant: mintGrant(KEY, { purpose: 'session', subject: 's1', holder: 'a' }, 60_000),
      });
      void connection.write(buildFrame('request', 1, Buffer.from('{"method":"echo"}')));
      await expect(done).rejects.toMatchObject({ code: 'PROTOCOL_VIOLATION' });
      expect(lab.current()).toBeUndefined();
    });
  });
}
