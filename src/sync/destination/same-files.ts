/**
 * Whether the files that an arriving guest reads, and that do not come with it, are here what they are at its source: by size, then by
 * mark. A guest that goes on with another disc, or base, would find its files changed under it.
 */
import { messageOf } from '../../model/errors';
import type { MarkedFile } from '../../model/guest';
import { cannotRunHere } from '../../model/guest-refusals';
import type { CodecPool } from '../codec/codec-pool';
import { contentMark } from '../codec/content-mark';

/**
 * @param files that its command names here, and that it may read
 * @throws GUEST_REFUSED with the first that is another
 */
export async function assertSameFiles(vmId: string, files: readonly MarkedFile[], pool: CodecPool): Promise<void> {
  for (const { path, use, sizeBytes, key, mark } of files) {
    const here = await contentMark(path, Buffer.from(key, 'hex'), pool).catch((error: unknown) => {
      throw cannotRunHere(`${vmId} needs ${path}, which cannot be read here: ${messageOf(error)}`, { cause: error });
    });
    // What is missing has been said, or QEMU is to say it (--force).
    if (!here || (here.sizeBytes === sizeBytes && here.mark === mark)) continue;
    const difference =
      here.sizeBytes === sizeBytes
        ? `both have ${sizeBytes} bytes, and other content`
        : `${here.sizeBytes} bytes here, ${sizeBytes} at the source`;
    const mend =
      use === 'start'
        ? 'put the source’s here, or --force starts it with this host’s'
        : 'put the source’s here, or eject it there';
    throw cannotRunHere(`${vmId} needs ${path}, and this host has another file there (${difference}): ${mend}`);
  }
}
