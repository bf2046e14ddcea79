/**
 * Opens an image at the destination, and proves on the way that this host knows the baseline which the destination would begin it
 * from: by the hashes that it has of the same state, else by what some blocks of its image are now. Where neither is enough
 * the image begins empty, which is slower and never wrong. The destination's half is baseline-proof.ts.
 */
import type { z } from 'zod';
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';
import { DwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, type ImageSpec } from '../../model/image';
import type { Manifest } from '../../store/manifest';
import type { SendingSession } from '../../transport/sending-session';
import type { CodecPool } from '../codec/codec-pool';
import type { BlockFeed } from '../feeds/block-feed';
import { type OpenedImage, openAnswerSchema, proofOf, readBody } from '../protocol';

/** The hashes that this host has of some blocks, 16 bytes each. */
export type HashesOf = (blocks: readonly number[]) => Promise<Uint8Array>;

/** By what was in an image when a baseline was made of it. */
export function hashesIn(manifest: Manifest): HashesOf {
  return (blocks) => Promise.resolve(Buffer.concat(blocks.map((block) => manifest.hashOf(block))));
}

/** By what is in an image now; undefined where its bytes lie nowhere yet. */
export function hashesNow({ file, load }: Pick<BlockFeed, 'file' | 'load'>, pool: CodecPool): HashesOf | undefined {
  if (!load) return file.fd < 0 ? undefined : (list) => pool.run({ kind: 'blockHashes', file, list });
  return async (list) => {
    const input = new SharedArrayBuffer(MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES);
    await load({ list }, Buffer.from(input));
    return pool.run({ kind: 'blockHashes', file, list, input });
  };
}

/**
 * @param proofs what to prove a baseline by, one after the other; undefined where the destination is to use none
 * @throws PROTOCOL_VIOLATION where blocks are asked for that the image has not
 */
export async function openProven(
  session: SendingSession,
  image: ImageSpec,
  proofs: readonly HashesOf[] | undefined,
): Promise<OpenedImage> {
  const proven = proofs && (await tryProofs(session, image, proofs));
  if (proven) return proven;
  const answer = await ask(session, image, 'empty');
  if ('opened' in answer) return answer.opened;
  throw new DwcpError('PROTOCOL_VIOLATION', 'A proof is asked of a baseline that is not wanted', { side: 'source' });
}

/** The same, but where these proofs are not enough nothing is decided. @returns undefined then */
export async function tryProofs(
  session: SendingSession,
  image: ImageSpec,
  proofs: readonly HashesOf[],
): Promise<OpenedImage | undefined> {
  let answer = await ask(session, image, 'baseline');
  for (const hashesOf of proofs) {
    if ('opened' in answer) return answer.opened;
    const { nonce, blocks } = answer.challenge;
    if (blocks.some((block) => block >= blockCount(image.sizeBytes)))
      throw new DwcpError('PROTOCOL_VIOLATION', 'A proof is asked of blocks that the image does not have', {
        side: 'source',
      });
    const proof = proofOf(Buffer.from(nonce, 'hex'), blocks, Buffer.from(await hashesOf(blocks)));
    answer = await ask(session, image, 'baseline', proof);
  }
  return 'opened' in answer ? answer.opened : undefined;
}

async function ask(
  { control }: SendingSession,
  { imageId }: ImageSpec,
  from: 'baseline' | 'empty',
  proof?: Buffer,
): Promise<z.infer<typeof openAnswerSchema>> {
  const answer = await control.request('open_image', { imageId, useBaseline: from === 'baseline' }, proof);
  return readBody(openAnswerSchema, answer);
}
