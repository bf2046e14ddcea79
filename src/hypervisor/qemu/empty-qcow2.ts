/**
 * A QCOW2 file with nothing in it, for a QEMU that is only tried: qemu-img, which makes them, need not be on a host that receives
 * guests. Version 3, clusters of 64 KiB: header, table of reference counts, counts, and as many empty clusters of the first level's
 * table as the size takes. Source: QEMU, docs/interop/qcow2.rst.
 */
const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 1 << CLUSTER_BITS;
const ENTRY_BYTES = 8;
/** What one entry of the first level's table stands for: a cluster of entries, each of a cluster. */
const COVERED_BYTES = (CLUSTER_BYTES / ENTRY_BYTES) * CLUSTER_BYTES;
const [COUNTS_TABLE, COUNTS, FIRST_LEVEL] = [1, 2, 3];
const HEADER_BYTES = 104;
const COUNT_BITS_ORDER = 4;

/** @returns its beginning, and how long the file has to be: what follows is zeros */
export function emptyQcow2(sizeBytes: number): { readonly head: Buffer; readonly fileBytes: number } {
  const entries = Math.max(1, Math.ceil(sizeBytes / COVERED_BYTES));
  const clusters = FIRST_LEVEL + Math.ceil((entries * ENTRY_BYTES) / CLUSTER_BYTES);
  const head = Buffer.alloc(FIRST_LEVEL * CLUSTER_BYTES);
  head.write('QFI\xfb', 'latin1');
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(CLUSTER_BITS, 20);
  head.writeBigUInt64BE(BigInt(sizeBytes), 24);
  head.writeUInt32BE(entries, 36);
  head.writeBigUInt64BE(BigInt(FIRST_LEVEL * CLUSTER_BYTES), 40);
  head.writeBigUInt64BE(BigInt(COUNTS_TABLE * CLUSTER_BYTES), 48);
  head.writeUInt32BE(1, 56);
  head.writeUInt32BE(COUNT_BITS_ORDER, 96);
  head.writeUInt32BE(HEADER_BYTES, 100);
  head.writeBigUInt64BE(BigInt(COUNTS * CLUSTER_BYTES), COUNTS_TABLE * CLUSTER_BYTES);
  for (let cluster = 0; cluster < clusters; cluster += 1) head.writeUInt16BE(1, COUNTS * CLUSTER_BYTES + 2 * cluster);
  return { head, fileBytes: clusters * CLUSTER_BYTES };
}
