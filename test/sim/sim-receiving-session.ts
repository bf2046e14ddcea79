/**
 * src/transport's receiving side of a session over the simulated link: requests are served and batches counted as there.
 */
import { type DwcpError, toDwcpError } from '../../src/model/errors';
import type { Answer, Message } from '../../src/transport/control-channel';
import type { Frame } from '../../src/transport/frame';
import type { ReceivingHandlers } from '../../src/transport/receiving-session';
import type { LinkEnd } from './sim-link';
import type { Wire } from './sim-wire';

export class SimReceivingSession {
  readonly id: string;
  readonly epoch: number;
  readonly streamCount = 4;
  readonly #end: LinkEnd;
  readonly #handlers: ReceivingHandlers;
  readonly #onEnd: () => void;
  #ended = false;

  constructor(
    { id, epoch, connection }: { readonly id: string; readonly epoch: number; readonly connection: LinkEnd },
    _slab: unknown,
    handlers: ReceivingHandlers,
    callbacks: { readonly ended: () => void },
  ) {
    this.id = id;
    this.epoch = epoch;
    this.#end = connection;
    this.#handlers = handlers;
    this.#onEnd = callbacks.ended;
    connection.onMessage = (message) => this.#receive(message as Wire);
    connection.onClosed = () => this.#over();
  }

  attach(): void {
    throw new Error('sim: no data streams');
  }

  takeTrain(): { readonly bytes: number; readonly spanMs: number } {
    return { bytes: 128 * 1024, spanMs: 30 };
  }

  end(error: DwcpError): void {
    if (this.#ended) return;
    this.#end.send({ type: 'refused', error: error.report() } satisfies Wire);
    this.#end.close();
    this.#over();
  }

  #receive(wire: Wire): void {
    if (wire.type === 'request') this.#serve(wire);
    else if (wire.type === 'batch') this.#batch(wire.frame);
    else if (wire.type === 'detach') this.#over();
  }

  #serve({ id, method, body, payload }: Wire & { readonly type: 'request' }): void {
    this.#handlers.request(method, { body: JSON.parse(body) as Message['body'], payload }).then(
      (answer: Answer) =>
        this.#end.send({
          type: 'answer',
          id,
          body: JSON.stringify(answer.body),
          payload: Buffer.from(answer.payload ?? Buffer.alloc(0)),
        } satisfies Wire),
      (error: unknown) =>
        this.#end.send({ type: 'failure', id, error: toDwcpError(error, 'INTERNAL').report() } satisfies Wire),
    );
  }

  #batch(frame: Frame): void {
    if (this.#ended) return;
    this.#handlers.batch(frame).then(
      (refused) => this.#end.send({ type: 'counters', verified: frame.sequence, refused } satisfies Wire),
      (error: unknown) => {
        const reason = toDwcpError(error, 'INTERNAL', { side: 'destination' });
        if (reason.spec.retry === 'operator') this.#end.send({ type: 'failed', error: reason.report() } satisfies Wire);
        else this.end(reason);
      },
    );
  }

  #over(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
  }
}
