/**
 * Bodies of requests and of answers that were valid, made wrong, for the schemas that read them: fast, and so by the million. What a
 * handler does with one is fuzz-hub.ts's, what a source does with an answer fuzz-source.ts's.
 */
import { z } from 'zod';
import { readBody } from '../src/sync/protocol';
import { openFrame, readHeader } from '../src/transport/frame';
import { readMeta } from '../src/transport/hello';
import { mutateJson } from './fuzz-json';
import { REQUESTS } from './fuzz-requests';
import { sealed } from './fuzz-sealed';
import { outcomeOf, type Target } from './fuzz-target';

const NAMES = { migrationId: 'm', vmId: 'vm', sourceHost: 'a' };
const ANY = z.looseObject({});

interface Read {
  readonly schema: z.ZodType;
  readonly body: unknown;
}

function target(name: string, type: 'request' | 'response', share: number, all: readonly Read[]): Target {
  const only = new Set([type]);
  return {
    name,
    share,
    play: (draw, _index, told) => {
      const { schema, body } = draw.pick(all);
      const frame = sealed(type, 1, mutateJson(body, draw));
      told(frame);
      return outcomeOf(() => {
        const opened = openFrame(readHeader(frame, only), frame);
        readBody(schema, { body: readMeta(ANY, opened), payload: opened.payload });
      });
    },
  };
}

export function requestsTarget(): Target {
  const all = Object.values(REQUESTS).flatMap(({ schema, body }) => (schema ? [{ schema, body: body(NAMES) }] : []));
  return target('requests', 'request', 150, all);
}

export function answersTarget(): Target {
  const all = Object.values(REQUESTS).flatMap(({ answerSchema, answers }) =>
    answerSchema ? answers.map((body) => ({ schema: answerSchema, body })) : [],
  );
  return target('answers', 'response', 150, all);
}
