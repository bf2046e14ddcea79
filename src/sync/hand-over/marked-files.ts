/**
 * What the destination is told of the files that a guest's command names and that stay behind: sizes and marks. Which files these are
 * is the driver's to say.
 */
import { randomBytes } from 'node:crypto';
import { HASH_KEY_BYTES } from '../../encoder/keyed-hash';
import type { GuestFile } from '../../hypervisor/contract';
import { DwcpError, toDwcpError } from '../../model/errors';
import type { MarkedFile } from '../../model/guest';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import type { CodecPool } from '../codec/codec-pool';
import { contentMark } from '../codec/content-mark';

/** @throws GUEST_REFUSED where another file lies at a path by now than the guest reads; IMAGE_UNREADABLE */
export async function markFiles(files: readonly GuestFile[], pool: CodecPool): Promise<MarkedFile[]> {
  const marked: MarkedFile[] = [];
  for (const file of files) marked.push(await markFile(file, pool));
  return marked;
}

async function markFile({ path, use, heldAt }: GuestFile, pool: CodecPool): Promise<MarkedFile> {
  const key = randomBytes(HASH_KEY_BYTES);
  try {
    const found = await contentMark(path, key, pool);
    if (!found) throw new DwcpError('IMAGE_UNREADABLE', `${path} is gone`, { side: 'source' });
    const held = heldAt === undefined ? found : await contentMark(heldAt, key, pool);
    if (held?.mark !== found.mark)
      throw cannotBeMovedLive(
        `it reads what was ${path} when it was started (${held?.sizeBytes ?? 0} bytes), and another file lies there now ` +
          `(${found.sizeBytes} bytes): eject it, or put the former one back`,
      );
    return { path, use, ...found, key: key.toString('hex') };
  } catch (error) {
    throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
  }
}
