/**
 * Whether the source has proven that it knows what an image was begun from: before that nothing of a baseline is told, written or
 * taken over. Asked for are the hashes of some of its blocks, chosen by chance, under a nonce; half of them must be right, since
 * a source that has lost its own account of the baseline answers by what its image is now. The source's half is
 * src/sync/source/proven-image.ts; how often and why: docs/security.md.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { HASH_BYTES } from '../../encoder/hash';
import { HASH_KEY_BYTES } from '../../encoder/keyed-hash';
import { writeDurably } from '../../store/durable-file';
import { inSlices } from '../../store/in-slices';
import type { Manifest } from '../../store/manifest';
import { type Challenge, MAX_PROOF_BLOCKS, proofOf } from '../protocol';

/** Of one baseline: whoever knows a part of it is not asked until that part comes up. */
const MOST_CHALLENGES = 8;
const RIGHT_SHARE = 0.5;
const LOOKED_AT_ONCE = 262_144;

export class BaselineProof {
  readonly #held: Manifest;
  readonly #path: string;
  #given: boolean;
  #left = MOST_CHALLENGES;
  #open: { readonly asker: object; readonly nonce: Buffer; readonly blocks: readonly number[] } | undefined;

  /** @param path where it is noted that it was given @param given it was, or nothing is there to be proven */
  constructor(held: Manifest, path: string, given: boolean) {
    this.#held = held;
    this.#path = path;
    this.#given = given;
  }

  get isGiven(): boolean {
    return this.#given;
  }

  /**
   * One step of it.
   * @param asker the session that asks, which alone may answer @param answer to its last challenge; empty where it has none
   * @returns what is to be answered next; undefined where it is not asked any more
   */
  async next(asker: object, answer: Buffer): Promise<Challenge | 'given' | undefined> {
    if (this.#given) return 'given';
    const open = this.#open;
    this.#open = undefined;
    if (open?.asker === asker && this.#isRight(open, answer)) return this.#give();
    if (this.#left === 0) return undefined;
    this.#left -= 1;
    const blocks = await someBlocks(this.#held);
    // Zeros everywhere: there is nothing that anybody could learn.
    if (blocks.length === 0) return this.#give();
    const nonce = randomBytes(HASH_KEY_BYTES);
    this.#open = { asker, nonce, blocks };
    return { nonce: nonce.toString('hex'), blocks };
  }

  #isRight({ nonce, blocks }: { readonly nonce: Buffer; readonly blocks: readonly number[] }, answer: Buffer): boolean {
    if (answer.length !== blocks.length * HASH_BYTES) return false;
    const hashes = Buffer.concat(blocks.map((block) => this.#held.hashOf(block)));
    const wanted = proofOf(nonce, blocks, hashes);
    const isEqual = (_block: number, index: number): boolean =>
      wanted.compare(
        answer,
        index * HASH_BYTES,
        (index + 1) * HASH_BYTES,
        index * HASH_BYTES,
        (index + 1) * HASH_BYTES,
      ) === 0;
    return blocks.filter(isEqual).length >= RIGHT_SHARE * blocks.length;
  }

  async #give(): Promise<'given'> {
    await writeDurably(this.#path, '');
    this.#given = true;
    return 'given';
  }
}

/** Blocks by chance, in rising order: none of zeros, no content twice. */
async function someBlocks(held: Manifest): Promise<number[]> {
  let filled = 0;
  await inSlices(held.blocks, LOOKED_AT_ONCE, (first, end) => {
    for (let block = first; block < end; block += 1) if (!held.isZero(block)) filled += 1;
  });
  const ranks = new Set<number>();
  if (filled <= MAX_PROOF_BLOCKS) for (let rank = 0; rank < filled; rank += 1) ranks.add(rank);
  else while (ranks.size < MAX_PROOF_BLOCKS) ranks.add(randomInt(0, filled));
  const chosen = new Map<string, number>();
  let rank = 0;
  await inSlices(held.blocks, LOOKED_AT_ONCE, (first, end) => {
    for (let block = first; block < end; block += 1) {
      if (held.isZero(block)) continue;
      if (ranks.has(rank)) chosen.set(held.hashOf(block).toString('latin1'), block);
      rank += 1;
    }
  });
  return [...chosen.values()].sort((a, b) => a - b);
}
