/**
 * What the kernel says of all streams of a path together, as of late: share of segments sent again, least round trip, rate
 * of delivery, share of their time that the destination's receive windows held them. Asked once a second; forgets with a
 * half-life, so that a path that has changed shows within seconds.
 */
import type { SendingStream } from './sending-stream';
import { readTcpInfo, type TcpInfo } from './tcp-info';

const ASK_EVERY_MS = 1_000;
const KEPT_PER_ASKING = 0.6;
const ENOUGH_SEGMENTS = 200;
const ENOUGH_BUSY_MS = 500;
const RTT_FORGOTTEN_MS = 60_000;

export class PathMeter {
  #before = new Map<number, TcpInfo>();
  #askedAt = 0;
  #segments = 0;
  #again = 0;
  #busyMs = 0;
  #windowLimitedMs = 0;
  #deliveryBytesPerSecond = 0;
  #minRttMs: number | undefined;
  #minRttAt = 0;

  /** 0 to 1; undefined until enough has been sent to tell, or where the kernel does not tell. */
  get lossRatio(): number | undefined {
    return this.#segments < ENOUGH_SEGMENTS ? undefined : Math.min(1, this.#again / this.#segments);
  }

  get minRttMs(): number | undefined {
    return this.#minRttMs;
  }

  /** 0 to 1: share of the streams' busy time. A receiver that is itself behind does not count: its window is closed on purpose. */
  get windowLimitedShare(): number | undefined {
    return this.#busyMs < ENOUGH_BUSY_MS ? undefined : Math.min(1, this.#windowLimitedMs / this.#busyMs);
  }

  /** Of all streams together; 0 where the kernel does not tell. */
  get deliveryBytesPerSecond(): number {
    return this.#deliveryBytesPerSecond;
  }

  observe(now: number, streams: Iterable<SendingStream>): void {
    if (now - this.#askedAt < ASK_EVERY_MS) return;
    this.#askedAt = now;
    this.#segments *= KEPT_PER_ASKING;
    this.#again *= KEPT_PER_ASKING;
    this.#busyMs *= KEPT_PER_ASKING;
    this.#windowLimitedMs *= KEPT_PER_ASKING;
    this.#deliveryBytesPerSecond = 0;
    const seen = new Map<number, TcpInfo>();
    let minRttMs = Infinity;
    for (const stream of streams) {
      const info = readTcpInfo(stream.connection.socket);
      if (!info) continue;
      seen.set(stream.id, info);
      if (info.minRttMs > 0) minRttMs = Math.min(minRttMs, info.minRttMs);
      const before = this.#before.get(stream.id);
      this.#segments += info.segmentsSent - (before?.segmentsSent ?? 0);
      this.#again += info.segmentsSentAgain - (before?.segmentsSentAgain ?? 0);
      this.#deliveryBytesPerSecond += info.deliveryBytesPerSecond;
      if (stream.receiverBlocked) continue;
      this.#busyMs += info.busyMs - (before?.busyMs ?? 0);
      this.#windowLimitedMs += info.windowLimitedMs - (before?.windowLimitedMs ?? 0);
    }
    this.#before = seen;
    if (
      minRttMs < (this.#minRttMs ?? Infinity) ||
      (Number.isFinite(minRttMs) && now - this.#minRttAt > RTT_FORGOTTEN_MS)
    ) {
      this.#minRttMs = minRttMs;
      this.#minRttAt = now;
    }
  }
}
