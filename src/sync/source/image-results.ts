/**
 * From what a sender counts to what people and programs read: progress reports and results, added up over the attempts
 * that an activity needed.
 */
import { type EncodingAccount, emptyAccount } from '../../encoder/account';
import type { ImageKind } from '../../model/ids';
import type { EncoderReport, ImageProgress, ImageResult } from '../../model/migration';
import type { BatchCounts } from './batch-counts';
import type { SendProgress, SentImage } from './image-sender';
import type { StandardProgress, StandardResult } from './standard-sender';

/** What the attempts before have come to, of one image. */
export function spentOn(before: readonly ImageProgress[], imageId: string): ImageProgress | undefined {
  return before.find((image) => image.imageId === imageId);
}

/** @param before the last report of the attempt before, if there was one */
export function progressOf(now: SendProgress, before: ImageProgress | undefined): ImageProgress {
  const payloadPerByte = now.linkBytes / Math.max(1, now.doneBytes);
  const remaining = (now.totalBytes - now.doneBytes) * payloadPerByte;
  return {
    v: 1,
    imageId: now.imageId,
    totalBytes: now.totalBytes,
    doneBytes: Math.round(now.doneBytes),
    linkBytes: now.linkBytes + (before?.linkBytes ?? 0),
    bytesPerSecond: Math.round(now.goodputBytesPerSecond),
    streams: now.streams,
    level: now.level,
    levelReason: now.levelReason,
    batchBytes: now.batchBytes,
    rttMs: Math.round(now.rttMs * 100) / 100,
    ...(now.goodputBytesPerSecond > 0 && { etaMs: Math.round((remaining / now.goodputBytesPerSecond) * 1000) }),
    elapsedMs: Math.round(now.elapsedMs) + (before?.elapsedMs ?? 0),
    ...began(before?.began ?? now.began),
    verifiedBlocks: now.verifiedBlocks + (before?.verifiedBlocks ?? 0),
  };
}

function began(first: ImageProgress['began']): Pick<ImageProgress, 'began'> {
  return first === undefined ? {} : { began: first };
}

/** Blocks with a version at the destination that were not sent in full, of all that had one. */
export function deltaHitRate({
  unchangedBlocks,
  replacedBlocks,
  account: {
    blocks: { pages, runDelta, oldPages },
  },
}: BatchCounts): number {
  const deltas = pages + runDelta + oldPages;
  const hits = unchangedBlocks + deltas;
  const candidates = unchangedBlocks + Math.max(replacedBlocks, deltas);
  return candidates === 0 ? 0 : hits / candidates;
}

export function imageResultOf(
  sent: SentImage,
  kind: ImageKind,
  before: ImageProgress | undefined,
  attempts: number,
): ImageResult {
  const { counts } = sent;
  const { blocks } = counts.account;
  // What an earlier attempt brought is found unchanged by this one: it was no hit of a baseline.
  const resumedBlocks =
    before?.began === 'empty' ? counts.unchangedBlocks : Math.min(counts.unchangedBlocks, before?.verifiedBlocks ?? 0);
  const unchanged = counts.unchangedBlocks - resumedBlocks;
  const linkBytes = sent.linkBytes + (before?.linkBytes ?? 0);
  return {
    imageId: sent.imageId,
    kind,
    totalBytes: sent.totalBytes,
    linkBytes,
    ratio: sent.totalBytes / Math.max(1, linkBytes),
    seconds: sent.seconds + (before?.elapsedMs ?? 0) / 1000,
    began: sent.began,
    verified: true,
    root: sent.root,
    streams: sent.maxStreams,
    level: sent.lastLevel,
    batchBytes: sent.batchBytes,
    deltaHitRate: deltaHitRate({ ...counts, unchangedBlocks: unchanged }),
    blocks: {
      zero: counts.zeroBlocks,
      unchanged,
      full: blocks.full,
      pages: blocks.pages,
      runDelta: blocks.runDelta,
      oldPages: blocks.oldPages,
      references: blocks.references,
      resent: counts.resentBlocks,
      refused: counts.refusedBlocks,
    },
    encoder: encoderReport(counts.account),
    attempts,
  };
}

/** Whole bytes and milliseconds: it travels through Temporal. */
function encoderReport({ bytes, headBytes, packings, times }: EncodingAccount): EncoderReport {
  const { full, pages, runDelta, oldPages, references } = bytes;
  const whole = <Name extends string>(numbers: Readonly<Record<Name, number>>): Record<Name, number> =>
    Object.fromEntries(Object.entries<number>(numbers).map(([name, value]) => [name, Math.round(value)])) as Record<
      Name,
      number
    >;
  return {
    bytes: whole({ full, pages, runDelta, oldPages, references, heads: headBytes }),
    packings: whole({ ...packings }),
    times: whole({ ...times }),
  };
}

export function standardProgressOf(
  now: StandardProgress,
  before: ImageProgress | undefined,
  seconds: number,
): ImageProgress {
  const bytesPerSecond = now.linkBytes / Math.max(0.1, seconds);
  return {
    v: 1,
    imageId: now.imageId,
    totalBytes: now.totalBytes,
    doneBytes: now.doneBytes,
    linkBytes: now.linkBytes + (before?.linkBytes ?? 0),
    bytesPerSecond: Math.round(bytesPerSecond),
    streams: 1,
    level: 0,
    batchBytes: 0,
    rttMs: 0,
    verifiedBlocks: 0,
    elapsedMs: Math.round(seconds * 1000) + (before?.elapsedMs ?? 0),
    ...(bytesPerSecond > 0 && { etaMs: Math.round(((now.totalBytes - now.doneBytes) / bytesPerSecond) * 1000) }),
  };
}

/** @param sent without a root where nobody has compared: QEMU itself brought the image */
export function standardResultOf(
  sent: Omit<StandardResult, 'manifest'>,
  kind: ImageKind,
  before: ImageProgress | undefined,
  attempts: number,
): ImageResult {
  const linkBytes = sent.linkBytes + (before?.linkBytes ?? 0);
  return {
    imageId: sent.imageId,
    kind,
    totalBytes: sent.totalBytes,
    linkBytes,
    ratio: sent.totalBytes / Math.max(1, linkBytes),
    seconds: sent.seconds + (before?.elapsedMs ?? 0) / 1000,
    began: sent.began,
    verified: sent.root !== '',
    root: sent.root,
    streams: 1,
    level: 0,
    batchBytes: 0,
    deltaHitRate: 0,
    blocks: {
      zero: 0,
      unchanged: 0,
      full: 0,
      pages: 0,
      runDelta: 0,
      oldPages: 0,
      references: 0,
      resent: 0,
      refused: 0,
    },
    encoder: encoderReport(emptyAccount()),
    attempts,
  };
}
