/** A frame whose checksum holds whatever its lengths are: what an attacker sends who knows the format. */
import { type FrameType, HEADER_BYTES, sealFrame } from '../src/transport/frame';

const NOTHING = Buffer.alloc(0);

export function sealed(type: FrameType, sequence: number, meta: Buffer, payload: Buffer = NOTHING): Buffer {
  const frame = Buffer.concat([Buffer.alloc(HEADER_BYTES), meta, payload]);
  sealFrame(frame, type, sequence, meta.length, payload.length);
  return frame;
}
