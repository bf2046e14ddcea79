/** Makes an image file known as a base: reads all of it on the worker threads, for its root and the digests of its pages. */
import { open } from 'node:fs/promises';
import { DwcpError, toDwcpError } from '../../model/errors';
import type { BaseDisk, BaseStore } from '../../store/base-disks';
import { Manifest } from '../../store/manifest';
import { blocksOf } from '../codec/block-selection';
import type { CodecPool } from '../codec/codec-pool';
import { measure } from '../codec/measure-file';
import { piecesOf } from '../codec/pieces';

const JOB_BLOCKS = 256;

/** @throws INVALID_INPUT where there is no such file */
export async function registerBase(
  base: Pick<BaseDisk, 'name' | 'tenant' | 'path'>,
  store: BaseStore,
  pool: CodecPool,
): Promise<BaseDisk> {
  const handle = await open(base.path, 'r').catch((error: unknown) => {
    throw toDwcpError(error, 'INVALID_INPUT');
  });
  try {
    const { size: sizeBytes, mtimeMs: modifiedAtMs } = await handle.stat();
    if (sizeBytes === 0) throw new DwcpError('INVALID_INPUT', `${base.path} is empty`);
    const manifest = new Manifest(sizeBytes);
    await measure(handle.fd, manifest, pool);
    const pages: Uint8Array[] = [];
    for (const piece of piecesOf(manifest.blocks, JOB_BLOCKS))
      pages.push(await pool.run({ kind: 'pageDigests', file: { fd: handle.fd, sizeBytes }, list: blocksOf(piece) }));
    const registered = { ...base, sizeBytes, modifiedAtMs, root: manifest.root() };
    await store.put(registered, Buffer.concat(pages));
    return registered;
  } finally {
    await handle.close();
  }
}
