/** Whether a baseline's content is what its manifest says, by reading all of it on the worker threads. Damage is found on use too; this finds it before. */
import { isMissing } from '../store/durable-file';
import type { Baseline } from '../store/baselines';
import type { CodecPool } from './codec-pool';
import { measureFile } from './measure-file';

export type BaselineVerdict =
  | { readonly state: 'whole'; readonly blocks: number }
  | { readonly state: 'damaged'; readonly blocks: number; readonly damagedBlocks: number }
  /** The VM lives here: its image is the content, and may change at any time. */
  | { readonly state: 'in use' }
  | { readonly state: 'missing' };

export async function verifyBaseline({ record, manifest }: Baseline, pool: CodecPool): Promise<BaselineVerdict> {
  if (record.contentPath === undefined) return { state: 'in use' };
  try {
    const now = await measureFile(record.contentPath, record.sizeBytes, pool);
    let damagedBlocks = 0;
    for (let block = 0; block < manifest.blocks; block += 1) if (!now.hashOf(block).equals(manifest.hashOf(block))) damagedBlocks += 1;
    return damagedBlocks === 0 ? { state: 'whole', blocks: manifest.blocks } : { state: 'damaged', blocks: manifest.blocks, damagedBlocks };
  } catch (error) {
    if (isMissing(error)) return { state: 'missing' };
    throw error;
  }
}
