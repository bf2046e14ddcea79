/**
 * A dictionary trained on samples of one VM type, as encoder and decoder know it: an immutable version, named by the first
 * four bytes of its BLAKE3. Where it comes from and who holds it is the dictionary store's business.
 */
export interface TrainedDictionary {
  readonly id: number;
  readonly bytes: Buffer;
}
