/** All that is fuzzed, in one process: the shares of all add up to a thousand. */

import { channelTarget } from './fuzz-channel';
import { decoderTarget, workersTarget } from './fuzz-decode';
import { framesTarget } from './fuzz-frames';
import { hellosTarget } from './fuzz-hello';
import { hubTarget } from './fuzz-hub';
import { answersTarget, requestsTarget } from './fuzz-messages';
import { assertAllRequests } from './fuzz-requests';
import { signedTargets } from './fuzz-signed';
import { sourceTarget } from './fuzz-source';
import type { Target } from './fuzz-target';
import { tlsTarget } from './fuzz-tls';

export async function openTargets(): Promise<readonly Target[]> {
  assertAllRequests();
  const { target: hub, admit } = await hubTarget();
  return [
    hellosTarget({ admit }),
    hub,
    framesTarget(),
    requestsTarget(),
    answersTarget(),
    decoderTarget(),
    channelTarget(),
    workersTarget(),
    ...(await signedTargets()),
    await sourceTarget(),
    await tlsTarget(),
  ];
}
