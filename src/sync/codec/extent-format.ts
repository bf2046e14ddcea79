/**
 * The meta part of an EXTENT frame, the unit of the standard transfer: a stretch of the image in order, plain.
 * Big-endian; 52 bytes:
 *
 *   offset size field
 *   0      8    where the stretch begins in the image
 *   8      8    its length
 *   16     1    1 data (the payload), 2 hole (no payload)
 *   17     3    zero
 *   20     32   SHA-256 of the payload; zero for a hole
 */
import { createHash } from 'node:crypto';
import { DwcpError } from '../../model/errors';

export const EXTENT_META_BYTES = 52;
const DIGEST_BYTES = 32;

export interface Extent {
  readonly kind: 'data' | 'hole';
  readonly offset: number;
  readonly length: number;
  readonly digest: Buffer;
}

export function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

export function writeExtentMeta(out: Buffer, { kind, offset, length, digest }: Extent): void {
  out.writeBigUInt64BE(BigInt(offset), 0);
  out.writeBigUInt64BE(BigInt(length), 8);
  out.writeUInt32BE(kind === 'data' ? 0x01000000 : 0x02000000, 16);
  digest.copy(out, 20, 0, DIGEST_BYTES);
}

/** Reads and bounds an extent. @throws PROTOCOL_VIOLATION */
export function readExtentMeta(meta: Buffer, payloadBytes: number, imageBytes: number): Extent {
  const refuse = (text: string): DwcpError =>
    new DwcpError('PROTOCOL_VIOLATION', `Extent refused: ${text}`, { side: 'destination' });
  if (meta.length !== EXTENT_META_BYTES) throw refuse(`its head is ${meta.length} bytes long`);
  const offset = Number(meta.readBigUInt64BE(0));
  const length = Number(meta.readBigUInt64BE(8));
  const kind = { 0x01000000: 'data' as const, 0x02000000: 'hole' as const }[meta.readUInt32BE(16)];
  if (!kind) throw refuse('unknown kind');
  if (length === 0 || offset + length > imageBytes) throw refuse('it lies outside its image');
  if (payloadBytes !== (kind === 'data' ? length : 0)) throw refuse(`${payloadBytes} bytes for a stretch of ${length}`);
  return { kind, offset, length, digest: meta.subarray(20, 52) };
}
