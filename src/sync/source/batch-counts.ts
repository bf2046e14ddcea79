/**
 * What a sync has looked at, sent and seen verified of one image, over all its passes. Counted by batch-source.ts,
 * shown by image-results.ts.
 */
import { type EncodingAccount, emptyAccount, sumOfAccounts } from '../../encoder/account';
import type { EncodeResult } from '../codec/codec-jobs';

export interface BatchCounts {
  scannedBlocks: number;
  zeroBlocks: number;
  unchangedBlocks: number;
  /** Sent although the destination held an older version: the misses and the deltas. */
  replacedBlocks: number;
  verifiedBlocks: number;
  resentBlocks: number;
  refusedBlocks: number;
  gatheredBytes: number;
  payloadBytes: number;
  account: EncodingAccount;
}

export function noCounts(): BatchCounts {
  return {
    scannedBlocks: 0,
    zeroBlocks: 0,
    unchangedBlocks: 0,
    replacedBlocks: 0,
    verifiedBlocks: 0,
    resentBlocks: 0,
    refusedBlocks: 0,
    gatheredBytes: 0,
    payloadBytes: 0,
    account: emptyAccount(),
  };
}

/** What was looked at for the first time. */
export function countScanned(counts: BatchCounts, result: EncodeResult): void {
  const { zeroBlocks, unchangedBlocks, sent, needPages } = result;
  counts.scannedBlocks += zeroBlocks + unchangedBlocks + sent.length + needPages.length;
  counts.zeroBlocks += zeroBlocks;
  counts.unchangedBlocks += unchangedBlocks;
}

export function countPacked(counts: BatchCounts, result: EncodeResult): void {
  counts.replacedBlocks += result.replacedBlocks;
  counts.gatheredBytes += result.gatheredBytes;
  counts.payloadBytes += result.payloadBytes;
  counts.account = sumOfAccounts(counts.account, result.account);
}
