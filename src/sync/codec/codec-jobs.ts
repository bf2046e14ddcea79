/**
 * What worker threads are asked to do, as data: each job names open files by their descriptor (which all threads of a
 * process share) and memory by SharedArrayBuffer, so nothing of an image is copied on the way to a thread and back.
 */
import type { EncodingAccount } from '../../encoder/account';
import type { EncodeSettings } from '../../encoder/batch-encoder';
import type { SharedDictionary } from '../../encoder/trained-dictionary';
import type { ContentCipher } from '../../store/sealing-key';
import type { BlockSelection } from './block-selection';
import type { SharedPageTable } from './page-table';
import type { BasePages, SharedReferences } from './reference-index';
import type { SharedVersions } from './version-cache';

export interface ImageFile {
  readonly fd: number;
  readonly sizeBytes: number;
  /** Where it is sealed. */
  readonly cipher?: ContentCipher | undefined;
}

/** Page hashes that the destination has told, and the key that it has made them with. */
export interface ToldPages {
  readonly hashes: Uint8Array;
  readonly key: Uint8Array;
}

export interface EncodeJob {
  readonly kind: 'encode';
  readonly file: ImageFile;
  readonly blocks: BlockSelection;
  /** Send all in full, whatever the destination is believed to hold. */
  readonly plain: boolean;
  /** Hashes of the source's blocks: filled in here. */
  readonly source: SharedArrayBuffer;
  /** Hashes of what the destination holds. */
  readonly held: SharedArrayBuffer;
  /** An older version of the image at the source, and its hashes. */
  readonly shadow?:
    | { readonly fd: number; readonly cipher?: ContentCipher | undefined; readonly hashes: SharedArrayBuffer }
    | undefined;
  /** What to do with a block that the destination holds in another version, whose bytes are not at the source. */
  readonly pages: 'ask' | 'send' | ToldPages;
  /** Page hashes of held versions: read where known, and written for every block sent. */
  readonly pageTable?: SharedPageTable | undefined;
  /** Versions sent before: old bytes where one is what the destination holds; those of blocks that change again are kept there. */
  readonly versions?: SharedVersions | undefined;
  /** The blocks' bytes, one behind the other, where they are not read from the file. */
  readonly input?: { readonly memory: SharedArrayBuffer; readonly offset: number } | undefined;
  /**
   * Pages that the destination has elsewhere.
   * @property from address of this image's first page, where its own are to be found by others
   */
  readonly references?: { readonly shared: SharedReferences; readonly from?: number | undefined } | undefined;
  /** Pages of bases that the destination has: findable by every image. */
  readonly bases?: BasePages | undefined;
  readonly settings: Omit<EncodeSettings, 'dictionary'> & { readonly dictionary?: SharedDictionary | undefined };
  readonly imageNumber: number;
  readonly sequence: number;
  readonly out: { readonly memory: SharedArrayBuffer; readonly offset: number; readonly length: number };
}

export interface EncodeResult {
  /** Length of the sealed BATCH frame in `out`; 0 where nothing has to be sent. */
  readonly frameBytes: number;
  readonly sent: readonly number[];
  /** Blocks left out until the page hashes of the destination are known. */
  readonly needPages: readonly number[];
  readonly zeroBlocks: number;
  readonly unchangedBlocks: number;
  /** Of the blocks sent, those of which the destination holds an older version that is not zeros. */
  readonly replacedBlocks: number;
  readonly gatheredBytes: number;
  readonly payloadBytes: number;
  readonly account: EncodingAccount;
}

export interface DecodeJob {
  readonly kind: 'decode';
  readonly file: ImageFile;
  /** Hashes of what is held: read, and set for every block written. */
  readonly held: SharedArrayBuffer;
  readonly references: readonly ReferenceSource[];
  /** Active on this host for this migration. */
  readonly dictionaries: readonly SharedDictionary[];
  readonly frame: {
    readonly memory: SharedArrayBuffer | ArrayBufferLike;
    readonly offset: number;
    readonly metaBytes: number;
    readonly payloadBytes: number;
  };
}

/** A file whose pages may be referred to, from the address `from` on. */
export interface ReferenceSource extends ImageFile {
  readonly from: number;
}

/** Makes the pages of a file findable. */
export interface IndexJob {
  readonly kind: 'index';
  readonly file: ImageFile;
  readonly first: number;
  readonly count: number;
  readonly shared: SharedReferences;
  readonly from: number;
}

export interface DecodeResult {
  readonly accepted: readonly number[];
  readonly refused: readonly number[];
}

/** Hashes what a file holds. Blocks marked in `skip` (one byte each) are known already. */
export interface MeasureJob {
  readonly kind: 'measure';
  readonly file: ImageFile;
  readonly first: number;
  readonly count: number;
  readonly hashes: SharedArrayBuffer;
  readonly skip?: SharedArrayBuffer | undefined;
}

/** BLAKE3 of each page, 16 bytes of it: what is kept of a base, and what page hashes that are told are made of. */
export interface PageDigestJob {
  readonly kind: 'pageDigests';
  readonly file: ImageFile;
  readonly list: readonly number[];
}

/** Hashes of a few blocks, 16 bytes each, as a manifest has them. */
export interface BlockHashJob {
  readonly kind: 'blockHashes';
  readonly file: ImageFile;
  /** The blocks' bytes, one behind the other, where they are not read from the file. */
  readonly input?: SharedArrayBuffer | undefined;
  /** At most a batch of them. */
  readonly list: readonly number[];
}

/** Compares blocks of a file with their hashes. */
export interface RecallJob {
  readonly kind: 'recall';
  readonly file: ImageFile;
  readonly list: readonly number[];
  readonly hashes: SharedArrayBuffer;
  /** One byte a block, set to 1 where the file holds what the hash says. */
  readonly trusted: SharedArrayBuffer;
}

/** Copies those blocks of a file that still hash as `hashes` says to another file; sparse stays sparse. */
export interface CopyJob {
  readonly kind: 'copy';
  readonly file: ImageFile;
  readonly toFd: number;
  readonly first: number;
  readonly count: number;
  readonly hashes: SharedArrayBuffer;
}

/** Seals or opens blocks of a baseline's content in place, or only compares them; what a block is now, its hash says. */
export interface SealJob {
  readonly kind: 'seal';
  readonly file: ImageFile;
  readonly first: number;
  readonly count: number;
  readonly hashes: SharedArrayBuffer;
  readonly cipher: ContentCipher | undefined;
  readonly into: 'sealed' | 'plain' | 'as it is';
}

export interface SealResult {
  /** Blocks that are neither what their hash says nor that, sealed. */
  readonly damaged: number;
}

/** Reads sample blocks and says what they would take on the wire; sends nothing. */
export interface SampleJob {
  readonly kind: 'sample';
  readonly file: ImageFile;
  /** The blocks' bytes, one behind the other, where they are not read from the file. */
  readonly input?: SharedArrayBuffer | undefined;
  readonly list: readonly number[];
  readonly held: SharedArrayBuffer;
  readonly level: number;
  readonly compress: boolean;
}

export interface SampleResult {
  readonly zeroBlocks: number;
  readonly unchangedBlocks: number;
  readonly changedBlocks: number;
  readonly changedBytes: number;
  readonly packedBytes: number;
  readonly packMs: number;
}

/** Standard transfer, source: reads a stretch of whole blocks, hashes them and seals it as an EXTENT frame in `out`. */
export interface ReadExtentJob {
  readonly kind: 'readExtent';
  readonly file: ImageFile;
  readonly offset: number;
  readonly length: number;
  /** The bytes are at their place in `out` already. */
  readonly loaded: boolean;
  /** Hashes of the image's blocks: filled in here. */
  readonly hashes: SharedArrayBuffer;
  readonly out: { readonly memory: SharedArrayBuffer; readonly offset: number; readonly length: number };
}

/** Standard transfer, destination: verifies an EXTENT frame and writes it; a hole stays or becomes one. */
export interface WriteExtentJob {
  readonly kind: 'writeExtent';
  readonly file: ImageFile;
  readonly frame: DecodeJob['frame'];
}

/** What a dictionary brings to frames of a page. */
export interface DictionaryGainJob {
  readonly kind: 'dictionaryGain';
  readonly dictionary: SharedArrayBuffer;
  readonly pages: SharedArrayBuffer;
}

export interface RootJob {
  readonly kind: 'root';
  readonly hashes: SharedArrayBuffer;
  readonly sizeBytes: number;
}

export interface CodecJobs {
  encode: { job: EncodeJob; result: EncodeResult };
  decode: { job: DecodeJob; result: DecodeResult };
  dictionaryGain: { job: DictionaryGainJob; result: { readonly plainBytes: number; readonly withBytes: number } };
  measure: { job: MeasureJob; result: { readonly dataBlocks: number } };
  pageDigests: { job: PageDigestJob; result: Uint8Array };
  blockHashes: { job: BlockHashJob; result: Uint8Array };
  recall: { job: RecallJob; result: { readonly equal: number } };
  copy: { job: CopyJob; result: { readonly copied: number; readonly differing: number } };
  sample: { job: SampleJob; result: SampleResult };
  seal: { job: SealJob; result: SealResult };
  readExtent: { job: ReadExtentJob; result: { readonly frameBytes: number } };
  writeExtent: { job: WriteExtentJob; result: { readonly end: number } };
  index: { job: IndexJob; result: { readonly pages: number } };
  root: { job: RootJob; result: string };
}

export type CodecJob = CodecJobs[keyof CodecJobs]['job'];
export type CodecResult = CodecJobs[keyof CodecJobs]['result'];

/** What a thread says first: from here on it loads nothing more. */
export const LOADED = 'loaded';
