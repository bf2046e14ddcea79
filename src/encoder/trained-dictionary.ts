/**
 * A dictionary trained on samples of one VM type, as encoder and decoder know it: an immutable version, named by the first
 * four bytes of its BLAKE3. Where it comes from and who holds it is the dictionary store's business.
 */
export interface TrainedDictionary {
  readonly id: number;
  readonly bytes: Buffer;
}

/** As it goes to worker threads, without being copied. */
export interface SharedDictionary {
  readonly id: number;
  readonly memory: SharedArrayBuffer;
}

export function shareBytes(bytes: Buffer): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(bytes.length);
  bytes.copy(Buffer.from(memory));
  return memory;
}

export function shareDictionary({ id, bytes }: TrainedDictionary): SharedDictionary {
  return { id, memory: shareBytes(bytes) };
}

export function fromShared({ id, memory }: SharedDictionary): TrainedDictionary {
  return { id, bytes: Buffer.from(memory) };
}
