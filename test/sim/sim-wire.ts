/**
 * What goes over the simulated link between two agents: the first exchange, requests and their answers, batches.
 */
import type { ErrorReport } from '../../src/model/errors';
import type { Frame } from '../../src/transport/frame';
import type { Hello } from '../../src/transport/hello';

export type Wire =
  | { readonly type: 'hello'; readonly hello: Hello }
  | { readonly type: 'welcome' }
  | { readonly type: 'refused'; readonly error: ErrorReport }
  | {
      readonly type: 'request';
      readonly id: number;
      readonly method: string;
      readonly body: string;
      readonly payload: Buffer;
    }
  | { readonly type: 'answer'; readonly id: number; readonly body: string; readonly payload: Buffer }
  | { readonly type: 'failure'; readonly id: number; readonly error: ErrorReport }
  | { readonly type: 'batch'; readonly frame: Frame }
  | { readonly type: 'counters'; readonly verified: number; readonly refused: readonly number[] }
  | { readonly type: 'failed'; readonly error: ErrorReport }
  | { readonly type: 'detach' };
