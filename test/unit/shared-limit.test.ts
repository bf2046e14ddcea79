/** One limit for all migrations of a host: shares by weight, nothing left unused. */
import { SharedLimit } from '../../src/transport/shared-limit';
import { TokenBucket } from '../../src/transport/token-bucket';

/** Takes as much as it gets until the time is over, over some streams at once. @returns bytes taken */
async function takeAllItCan(bucket: TokenBucket, untilMs: number, streams = 16): Promise<number> {
  let taken = 0;
  const stream = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      const bytes = Math.min(bucket.quantumBytes, 1e6);
      await bucket.take(bytes);
      taken += bytes;
    }
  };
  await Promise.all(Array.from({ length: streams }, stream));
  return taken;
}

describe('a limit that migrations share', () => {
  it('divides two to one by priority where both want more, and the sum is the limit', async () => {
    const limit = new SharedLimit(20e6);
    const [urgent, other] = [new TokenBucket(0, limit.share(10)), new TokenBucket(0, limit.share(5))];
    const startedAt = performance.now();
    const [first, second] = await Promise.all([
      takeAllItCan(urgent, startedAt + 1500),
      takeAllItCan(other, startedAt + 1500),
    ]);
    const seconds = (performance.now() - startedAt) / 1000;
    expect(first / second).toBeGreaterThan(1.8);
    expect(first / second).toBeLessThan(2.2);
    expect((first + second) / seconds).toBeLessThan(20e6 * 1.05);
  });

  it('gives the whole limit to one where the other wants nothing, or keeps to a lower limit of its own', async () => {
    const limit = new SharedLimit(20e6);
    const [greedy, modest] = [new TokenBucket(0, limit.share(1)), new TokenBucket(2e6, limit.share(10))];
    const startedAt = performance.now();
    const [most, little] = await Promise.all([
      takeAllItCan(greedy, startedAt + 800),
      takeAllItCan(modest, startedAt + 800),
    ]);
    expect(most / little).toBeGreaterThan(5);
    expect(modest.rateBytesPerSecond).toBe(2e6);
  });

  it('does not make one wait for what it took while it was alone', async () => {
    const limit = new SharedLimit(100e6);
    const early = new TokenBucket(0, limit.share(5));
    for (let sent = 0; sent < 50; sent += 1) {
      await early.take(8192);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const late = new TokenBucket(0, limit.share(5));
    const until = performance.now() + 500;
    const [first, second] = await Promise.all([takeAllItCan(early, until), takeAllItCan(late, until)]);
    expect(first / second).toBeGreaterThan(0.8);
    expect(first / second).toBeLessThan(1.25);
  });

  it('frees everybody when it is taken off, and whoever waits when its migration ends', async () => {
    const limit = new SharedLimit(1000);
    const share = limit.share(5);
    const bucket = new TokenBucket(0, share);
    await bucket.take(100_000);
    const waiting = Promise.all([bucket.take(100_000), bucket.take(100_000)]);
    share.leave();
    await waiting;
    const other = new TokenBucket(0, limit.share(5));
    const more = other.take(100_000);
    limit.setRate(0);
    await more;
    expect(other.take(1e9)).toBeUndefined();
  });
});
