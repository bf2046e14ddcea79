/** Memory that a thread uses over and over, made larger where it does not suffice. */
export function grown(buffer: Buffer, bytes: number): Buffer {
  return buffer.length >= bytes ? buffer : Buffer.allocUnsafeSlow(bytes);
}
