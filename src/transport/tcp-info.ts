/**
 * What the kernel knows of one TCP connection (getsockopt TCP_INFO and TCP_CONGESTION, through koffi, a microsecond a
 * call): segments sent and sent again, least round trip, rate of delivery, how long the receiver's window was the brake.
 * Undefined where it cannot be asked: no Linux, no koffi, no descriptor. Everything works without; the tuner then waits
 * longer and says less.
 *
 *   offset 100 u32 total_retrans    148 u32 min_rtt (us)     156 u32 data_segs_out
 *          160 u64 delivery_rate    168 u64 busy_time (us)   176 u64 rwnd_limited (us)
 *
 * Source: struct tcp_info, include/uapi/linux/tcp.h; fields are only ever added behind the last.
 */
import type { Socket } from 'node:net';
import { libcFunction } from '../system/libc';
import { descriptorOf } from './descriptor';

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const TCP_CONGESTION = 13;
/** Up to and with rwnd_limited: Linux 4.10 and newer. */
const INFO_BYTES = 184;
const NAME_BYTES = 16;

export interface TcpInfo {
  readonly minRttMs: number;
  readonly segmentsSent: number;
  readonly segmentsSentAgain: number;
  /** As the kernel saw it last, by the acknowledgements of a full flight. */
  readonly deliveryBytesPerSecond: number;
  /** Since the connection was opened: with something to send, and of that, held by the receiver's window. */
  readonly busyMs: number;
  readonly windowLimitedMs: number;
}

type GetSockOpt = (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number;
const getSockOpt = libcFunction(
  'int getsockopt(int fd, int level, int option, _Out_ uint8_t *value, _Inout_ uint8_t *length)',
) as () => GetSockOpt | undefined;

function ask(socket: Socket, option: number, bytes: number): Buffer | undefined {
  const call = getSockOpt();
  const fd = descriptorOf(socket);
  if (!call || fd === undefined) return undefined;
  const value = Buffer.alloc(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes);
  if (call(fd, IPPROTO_TCP, option, value, length) !== 0) return undefined;
  return value.subarray(0, length.readUInt32LE());
}

export function readTcpInfo(socket: Socket): TcpInfo | undefined {
  const info = ask(socket, TCP_INFO, INFO_BYTES);
  if (!info || info.length < INFO_BYTES) return undefined;
  return {
    minRttMs: info.readUInt32LE(148) / 1000,
    segmentsSent: info.readUInt32LE(156),
    segmentsSentAgain: info.readUInt32LE(100),
    deliveryBytesPerSecond: Number(info.readBigUInt64LE(160)),
    busyMs: Number(info.readBigUInt64LE(168)) / 1000,
    windowLimitedMs: Number(info.readBigUInt64LE(176)) / 1000,
  };
}

/** `cubic`, `bbr`: what paces this connection. */
export function congestionControlOf(socket: Socket): string | undefined {
  const name = ask(socket, TCP_CONGESTION, NAME_BYTES);
  const text = name?.subarray(0, name.indexOf(0) < 0 ? undefined : name.indexOf(0)).toString('latin1');
  return text === '' ? undefined : text;
}
