/**
 * A valid example of every request of the control connection and of every answer to it, with the schema that reads each. The names come
 * from the destination's own table of handlers: one that has no example here ends the bench.
 */
import type { z } from 'zod';
import { blockHash } from '../src/encoder/hash';
import { takenOverSchema } from '../src/model/hand-over';
import { destinationRequests } from '../src/sync/destination/destination-requests';
import {
  abandonSchema,
  basePagesSchema,
  basesOfferedSchema,
  dictionaryAnsweredSchema,
  dictionarySchema,
  finishImageSchema,
  guestBeginSchema,
  guestLeftSchema,
  guestLoadSchema,
  installImageSchema,
  manifestRequestSchema,
  openAnswerSchema,
  openImageSchema,
  pageHashesSchema,
  prepareSchema,
  referencesAnsweredSchema,
  referencesSchema,
  takeOverSchema,
  trainSchema,
} from '../src/sync/protocol';

export const KEY_TEXT = 'ab'.repeat(32);
const DICTIONARY = Buffer.alloc(4096, 8);
const BASE = { name: 'debian-12', mark: KEY_TEXT, sizeBytes: 65_536, from: 2 ** 40 };
const OPENED = { image: 0, state: 'empty', root: KEY_TEXT, zero: true, bases: false, pageKey: KEY_TEXT };

/** Fields that a session's own names go into: of the migration, its VM, its image. */
export interface Names {
  readonly migrationId: string;
  readonly vmId: string;
  readonly sourceHost: string;
  /** Of the image, where it is known. */
  readonly root?: string;
}

export interface RequestExample {
  /** Undefined where a request has no fields. */
  readonly schema?: z.ZodType;
  readonly body: (names: Names) => Readonly<Record<string, unknown>>;
  readonly payload?: Buffer;
  readonly answerSchema?: z.ZodType;
  readonly answers: readonly Readonly<Record<string, unknown>>[];
  readonly answerPayload?: Buffer;
}

const NOTHING = { answers: [{}] };

export const REQUESTS: Readonly<Record<string, RequestExample>> = {
  open_image: {
    schema: openImageSchema,
    body: () => ({ imageId: 'vda', useBaseline: true }),
    payload: Buffer.alloc(16 * 3, 5),
    answerSchema: openAnswerSchema,
    answers: [{ ...OPENED, state: 'resumed', zero: false }, { prove: { nonce: KEY_TEXT, blocks: [0, 1, 3] } }, OPENED],
  },
  manifest: {
    schema: manifestRequestSchema,
    body: () => ({ image: 0, first: 0, count: 4 }),
    answers: [{ packed: false }, { packed: true }],
    answerPayload: Buffer.alloc(16 * 5, 9),
  },
  page_hashes: {
    schema: pageHashesSchema,
    body: () => ({ image: 0 }),
    payload: Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]),
    answers: [{}],
    answerPayload: Buffer.alloc(2 * 128, 3),
  },
  references: {
    schema: referencesSchema,
    body: () => ({
      key: KEY_TEXT,
      disks: [{ image: 0, from: 0 }],
      files: [{ path: '/usr/share/qemu/bios.bin', sizeBytes: 131_072, from: 64, sample: KEY_TEXT }],
    }),
    answerSchema: referencesAnsweredSchema,
    answers: [{ accepted: [true] }],
  },
  bases: {
    body: () => ({}),
    payload: Buffer.alloc(8 * 32, 6),
    answerSchema: basesOfferedSchema,
    answers: [{ bases: [BASE, { ...BASE, name: 'other', from: 2 ** 40 + 16 }] }],
  },
  base_pages: {
    schema: basePagesSchema,
    body: () => ({ name: 'debian-12', first: 0, count: 16 }),
    answers: [{}],
    answerPayload: Buffer.alloc(8 * 16, 4),
  },
  dictionary: {
    schema: dictionarySchema,
    body: () => ({ hash: blockHash(DICTIONARY).toString('hex') }),
    payload: DICTIONARY,
    answerSchema: dictionaryAnsweredSchema,
    answers: [{ active: true }, { active: false }],
  },
  finish_image: { schema: finishImageSchema, body: ({ root = KEY_TEXT }) => ({ image: 0, root }), ...NOTHING },
  guest_begin: { schema: guestBeginSchema, body: () => ({ sectionId: 7 }), payload: Buffer.from('set-up'), ...NOTHING },
  guest_ready: { body: () => ({}), ...NOTHING },
  guest_left: { body: () => ({}), answerSchema: guestLeftSchema, answers: [{ bytes: 65_536 }] },
  guest_load: {
    schema: guestLoadSchema,
    body: () => ({ commandBytes: 2, totalBytes: 12 }),
    payload: Buffer.alloc(12),
    ...NOTHING,
  },
  take_over: {
    schema: takeOverSchema,
    body: ({ vmId, root = KEY_TEXT }) => ({ vmId, roots: { vda: root } }),
    answerSchema: takenOverSchema,
    answers: [{ generation: 1 }, { generation: 2, resumedAtMs: 1_700_000_000_000, responds: true }],
  },
  keep: { body: () => ({}), ...NOTHING },
  prepare: {
    schema: prepareSchema,
    body: ({ migrationId, vmId, sourceHost }) => ({
      record: {
        ...{ migrationId, vmId, sourceHost, mode: 'direct', fence: 0, generation: 0 },
        images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 4 * 65_536 + 5000 }],
      },
    }),
    ...NOTHING,
  },
  install_image: { schema: installImageSchema, body: () => ({ imageId: 'vda' }), ...NOTHING },
  train: { body: () => ({}), answerSchema: trainSchema, answers: [{ bytes: 14_000, spanMs: 1.5 }] },
  abandon: { schema: abandonSchema, body: ({ vmId }) => ({ vmId, fence: 0 }), ...NOTHING },
};

/** @throws where a request of the product has no example here, or one here is none of the product's */
export function assertAllRequests(): void {
  // The table is made without asking anything of the hub.
  const handled = Object.keys(destinationRequests({} as never, {} as never)).sort();
  const known = Object.keys(REQUESTS).sort();
  const wrong = [
    ...handled.filter((name) => !known.includes(name)),
    ...known.filter((name) => !handled.includes(name)),
  ];
  if (wrong.length > 0) throw new Error(`bench/fuzz-requests.ts and the table of requests differ: ${wrong.join(', ')}`);
}
