/**
 * One message on the wire. Every connection of the data plane, whatever its role, carries frames and nothing else.
 * Big-endian:
 *
 *   offset size field
 *   0      2    magic 0x4457, "DW"
 *   2      1    version of this layout, 1
 *   3      1    type (FRAME below; 0 is invalid)
 *   4      4    meta length
 *   8      4    payload length
 *   12     4    zero
 *   16     8    sequence: batch id, request id or ping time
 *   24     8    XXH3-64 over header (this field as zeros) and meta; over the payload too, except for BATCH and EXTENT,
 *               whose payload is verified block by block with a cryptographic hash
 *   32     m    meta
 *   32+m   p    payload
 *
 * Lengths are bounded per type before any memory is taken. Full description: docs/wire-format.md.
 */
import { batchMetaBytes, MAX_BATCH_BLOCKS, MAX_GATHERED_BYTES } from '../encoder/batch-format';
import { quickHash } from '../encoder/hash';
import { DwcpError } from '../model/errors';
import { KIB, MIB } from '../model/units';

export const WIRE_VERSION = 1;
export const HEADER_BYTES = 32;
const MAGIC = 0x4457;
const CHECKSUM_OFFSET = 24;

export const FRAME = {
  hello: 1,
  welcome: 2,
  refused: 3,
  request: 4,
  response: 5,
  event: 6,
  batch: 7,
  ping: 8,
  pong: 9,
  detach: 10,
  probe: 11,
  extent: 12,
  tunnel: 13,
  part: 14,
} as const;

export type FrameType = keyof typeof FRAME;

interface FrameLimits {
  readonly meta: number;
  readonly payload: number;
}

/** Packed content may be a little larger than what it stands for; the bound of zstd for 4 MiB is under this. */
const PACKING_SLACK = 64 * KIB;

const LIMITS: Readonly<Record<FrameType, FrameLimits>> = {
  hello: { meta: 4 * KIB, payload: 0 },
  welcome: { meta: 4 * KIB, payload: 0 },
  refused: { meta: 4 * KIB, payload: 0 },
  request: { meta: 64 * KIB, payload: 2 * MIB },
  response: { meta: 64 * KIB, payload: 2 * MIB },
  event: { meta: 64 * KIB, payload: 2 * MIB },
  batch: { meta: batchMetaBytes(MAX_BATCH_BLOCKS), payload: MAX_GATHERED_BYTES + PACKING_SLACK },
  ping: { meta: 0, payload: 0 },
  pong: { meta: 0, payload: 0 },
  detach: { meta: 0, payload: 0 },
  probe: { meta: 0, payload: 64 * KIB },
  extent: { meta: 4 * KIB, payload: MIB },
  tunnel: { meta: 0, payload: 64 * KIB },
  part: { meta: 8, payload: 16 * KIB },
};

const TYPE_BY_NUMBER = new Map<number, FrameType>(
  Object.entries(FRAME).map(([name, number]) => [number, name as FrameType]),
);

export interface FrameHeader {
  readonly type: FrameType;
  readonly metaBytes: number;
  readonly payloadBytes: number;
  readonly sequence: number;
}

/** A received frame. `bytes` is the whole of it, header included; meta and payload are views on it. */
export interface Frame extends FrameHeader {
  readonly bytes: Buffer;
  readonly meta: Buffer;
  readonly payload: Buffer;
}

function coveredBytes(type: FrameType, metaBytes: number, payloadBytes: number): number {
  return HEADER_BYTES + metaBytes + (type === 'batch' || type === 'extent' ? 0 : payloadBytes);
}

/** Writes the header in front of meta and payload, which lie at their places in `frame` already. */
export function sealFrame(
  frame: Buffer,
  type: FrameType,
  sequence: number,
  metaBytes: number,
  payloadBytes: number,
): void {
  frame.writeUInt16BE(MAGIC, 0);
  frame.writeUInt8(WIRE_VERSION, 2);
  frame.writeUInt8(FRAME[type], 3);
  frame.writeUInt32BE(metaBytes, 4);
  frame.writeUInt32BE(payloadBytes, 8);
  frame.writeUInt32BE(0, 12);
  frame.writeBigUInt64BE(BigInt(sequence), 16);
  frame.fill(0, CHECKSUM_OFFSET, HEADER_BYTES);
  quickHash(frame.subarray(0, coveredBytes(type, metaBytes, payloadBytes))).copy(frame, CHECKSUM_OFFSET);
}

const NOTHING = Buffer.alloc(0);

export function buildFrame(
  type: FrameType,
  sequence: number,
  meta: Buffer = NOTHING,
  payload: Buffer = NOTHING,
): Buffer {
  const limits = LIMITS[type];
  if (meta.length > limits.meta || payload.length > limits.payload) {
    throw new DwcpError('INTERNAL', `A ${type} frame of ${meta.length} + ${payload.length} bytes is over its limit`);
  }
  const frame = Buffer.allocUnsafe(HEADER_BYTES + meta.length + payload.length);
  meta.copy(frame, HEADER_BYTES);
  payload.copy(frame, HEADER_BYTES + meta.length);
  sealFrame(frame, type, sequence, meta.length, payload.length);
  return frame;
}

function violation(text: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', `Frame refused: ${text}`);
}

/**
 * Reads and bounds a header; nothing behind it has been read yet.
 * @throws PROTOCOL_VERSION, PROTOCOL_VIOLATION
 */
export function readHeader(bytes: Buffer, allowed: ReadonlySet<FrameType>): FrameHeader {
  if (bytes.readUInt16BE(0) !== MAGIC) throw violation('it does not start with the magic of DWCP');
  const version = bytes.readUInt8(2);
  if (version !== WIRE_VERSION)
    throw new DwcpError(
      'PROTOCOL_VERSION',
      `The peer speaks version ${version} of the wire protocol, this side ${WIRE_VERSION}`,
    );
  const type = TYPE_BY_NUMBER.get(bytes.readUInt8(3));
  if (!type || !allowed.has(type)) throw violation(`type ${bytes.readUInt8(3)} is not expected here`);
  const metaBytes = bytes.readUInt32BE(4);
  const payloadBytes = bytes.readUInt32BE(8);
  const limits = LIMITS[type];
  if (metaBytes > limits.meta || payloadBytes > limits.payload) {
    throw violation(
      `a ${type} frame of ${metaBytes} + ${payloadBytes} bytes is over the limit of ${limits.meta} + ${limits.payload}`,
    );
  }
  if (bytes.readUInt32BE(12) !== 0) throw violation('its reserved field is not zero');
  const sequence = bytes.readBigUInt64BE(16);
  if (sequence > BigInt(Number.MAX_SAFE_INTEGER)) throw violation('its sequence is out of range');
  return { type, metaBytes, payloadBytes, sequence: Number(sequence) };
}

/** Checks a complete frame and cuts it into its parts. @throws FRAME_CORRUPT */
export function openFrame(header: FrameHeader, bytes: Buffer): Frame {
  const promised = Buffer.from(bytes.subarray(CHECKSUM_OFFSET, HEADER_BYTES));
  bytes.fill(0, CHECKSUM_OFFSET, HEADER_BYTES);
  const found = quickHash(bytes.subarray(0, coveredBytes(header.type, header.metaBytes, header.payloadBytes)));
  if (!found.equals(promised)) throw new DwcpError('FRAME_CORRUPT', `A ${header.type} frame arrived damaged`);
  const payloadAt = HEADER_BYTES + header.metaBytes;
  return {
    ...header,
    bytes,
    meta: bytes.subarray(HEADER_BYTES, payloadAt),
    payload: bytes.subarray(payloadAt, payloadAt + header.payloadBytes),
  };
}
