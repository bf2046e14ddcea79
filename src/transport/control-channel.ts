/**
 * The control connection of a session: requests with answers, one-way events, and pings that tell a dead path from a
 * quiet one. Never behind bulk data, since it is a connection of its own. What methods exist is the session's business.
 *
 *   REQUEST  sequence = request id   meta = JSON {method, ...parameters}      payload = bytes the method defines
 *   RESPONSE sequence = request id   meta = JSON {ok: true, ...result} or {ok: false, error}    payload likewise
 *   EVENT    sequence = 0            meta = JSON {event, ...}                 payload likewise
 *   PING/PONG sequence = the sender's clock in microseconds
 */
import { z } from 'zod';
import { DwcpError, errorReportSchema, fromReport, toDwcpError } from '../model/errors';
import type { Connection, Received } from './connection';
import { buildFrame, type Frame, type FrameType } from './frame';
import { readMeta, refusedFrame } from './hello';

export interface Message {
  readonly body: Readonly<Record<string, unknown>>;
  readonly payload: Buffer;
}

export interface Answer {
  readonly body: Record<string, unknown>;
  readonly payload?: Buffer;
}

export interface ControlHandlers {
  /** Answers a request; what it throws goes to the other side with its code. */
  request(method: string, message: Message): Promise<Answer>;
  event(name: string, message: Message): void;
  /** Called once, when the channel has ended. */
  closed(error: DwcpError): void;
  /** The other side has no more use for the session and leaves the connection open. */
  detached?(): void;
}

const FRAMES: ReadonlySet<FrameType> = new Set(['request', 'response', 'event', 'ping', 'pong', 'detach', 'refused']);
const PING_EVERY_MS = 500;
/**
 * Silence after which the path counts as dead. Beyond it TCP's own retransmissions are seconds apart, so a path that
 * comes back is found sooner by a fresh connection.
 */
const SILENCE_LIMIT_MS = 6_000;
const SILENCE_ROUND_TRIPS = 10;
const MAX_PENDING = 64;
const RTT_WINDOW = 60;

const requestSchema = z.looseObject({ method: z.string().min(1).max(60) });
const eventSchema = z.looseObject({ event: z.string().min(1).max(60) });
const responseSchema = z.union([
  z.looseObject({ ok: z.literal(true) }),
  z.object({ ok: z.literal(false), error: errorReportSchema }),
]);

interface Pending {
  readonly resolve: (message: Message) => void;
  readonly reject: (error: DwcpError) => void;
}

export class ControlChannel {
  readonly #connection: Connection;
  readonly #handlers: ControlHandlers;
  readonly #pending = new Map<number, Pending>();
  readonly #pinger: NodeJS.Timeout;
  readonly #rttSamplesMs: number[] = [];
  readonly #silenceLimitMs: number;
  #nextId = 1;
  #heardAt = performance.now();
  #serving = 0;
  #releasedWith: DwcpError | undefined;

  constructor(connection: Connection, handlers: ControlHandlers, silenceLimitMs = SILENCE_LIMIT_MS) {
    this.#silenceLimitMs = silenceLimitMs;
    this.#connection = connection;
    this.#handlers = handlers;
    this.#pinger = setInterval(() => this.#beat(), PING_EVERY_MS);
    connection.use(
      FRAMES,
      (received) => this.#receive(received),
      (error) => this.#end(error),
    );
    if (!connection.closed) this.ping();
  }

  get closed(): boolean {
    return this.#releasedWith !== undefined || this.#connection.closed;
  }

  /** Least round trip of the last half minute; undefined before the first answer. */
  get rttMs(): number | undefined {
    return this.#rttSamplesMs.length === 0 ? undefined : Math.min(...this.#rttSamplesMs);
  }

  /** Mean difference between one round trip and the next. */
  get jitterMs(): number {
    const samples = this.#rttSamplesMs;
    const steps = samples.slice(1).map((rttMs, index) => Math.abs(rttMs - (samples[index] ?? rttMs)));
    return steps.length === 0 ? 0 : steps.reduce((sum, step) => sum + step, 0) / steps.length;
  }

  ping(): void {
    void this.#connection.write(buildFrame('ping', Math.round(performance.now() * 1000)));
  }

  /** Asks the other side. @throws what it threw, SESSION_LOST where the channel ends before the answer */
  request(method: string, body: Record<string, unknown>, payload?: Buffer): Promise<Message> {
    if (this.closed) return Promise.reject(lost(this.#releasedWith));
    if (this.#pending.size >= MAX_PENDING)
      return Promise.reject(new DwcpError('INTERNAL', `More than ${MAX_PENDING} requests are open`));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      void this.#connection.write(buildFrame('request', id, json({ ...body, method }), payload));
    });
  }

  /** Sends an event; it is lost where the channel has ended. */
  notify(event: string, body: Record<string, unknown>, payload?: Buffer): void {
    if (!this.closed) void this.#connection.write(buildFrame('event', 0, json({ ...body, event }), payload));
  }

  destroy(error: DwcpError): void {
    this.#connection.destroy(error);
  }

  /** Ends the channel and tells the other side why. */
  refuse(error: DwcpError): void {
    this.#connection.endWith(refusedFrame(error), error);
  }

  /**
   * Stops using the connection and leaves it open for whoever takes it over: questions that are open end with the reason.
   * @returns false where it is of no use to anybody, since an answer is still to come or to be given
   */
  release(reason = new DwcpError('SESSION_LOST', 'The session has ended')): boolean {
    const unused = this.#pending.size === 0 && this.#serving === 0;
    clearInterval(this.#pinger);
    this.#releasedWith = reason;
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#pending.clear();
    return unused;
  }

  #beat(): void {
    const limitMs = Math.max(this.#silenceLimitMs, SILENCE_ROUND_TRIPS * (this.rttMs ?? 0));
    if (performance.now() - this.#heardAt > limitMs) {
      this.destroy(new DwcpError('SESSION_LOST', `The other side has been silent for ${limitMs / 1000} s`));
    } else this.ping();
  }

  #receive({ frame }: Received): void {
    this.#heardAt = performance.now();
    try {
      this.#dispatch(frame);
    } catch (error) {
      this.destroy(toDwcpError(error, 'PROTOCOL_VIOLATION'));
    }
  }

  #dispatch(frame: Frame): void {
    switch (frame.type) {
      case 'ping':
        void this.#connection.write(buildFrame('pong', frame.sequence));
        return;
      case 'pong':
        this.#rttSamplesMs.push(Math.max(0.01, performance.now() - frame.sequence / 1000));
        if (this.#rttSamplesMs.length > RTT_WINDOW) this.#rttSamplesMs.shift();
        return;
      case 'request':
        this.#serve(frame);
        return;
      case 'response':
        this.#settle(frame);
        return;
      case 'detach':
        this.#handlers.detached?.();
        return;
      default: {
        const body = readMeta(eventSchema, frame);
        this.#handlers.event(body.event, { body, payload: frame.payload });
      }
    }
  }

  #serve(frame: Frame): void {
    if (this.#serving >= MAX_PENDING)
      throw new DwcpError('PROTOCOL_VIOLATION', `More than ${MAX_PENDING} requests are open`);
    const body = readMeta(requestSchema, frame);
    this.#serving += 1;
    this.#handlers
      .request(body.method, { body, payload: frame.payload })
      .then(
        (answer) => buildFrame('response', frame.sequence, json({ ...answer.body, ok: true }), answer.payload),
        (error: unknown) =>
          buildFrame('response', frame.sequence, json({ ok: false, error: toDwcpError(error, 'INTERNAL').report() })),
      )
      .then((answer) => (this.#releasedWith ? undefined : this.#connection.write(answer)))
      .catch((error: unknown) => this.destroy(toDwcpError(error, 'INTERNAL')))
      .finally(() => (this.#serving -= 1));
  }

  #settle(frame: Frame): void {
    const pending = this.#pending.get(frame.sequence);
    if (!pending) return;
    // First: what cannot be read ends the channel, and with it the question.
    const body = readMeta(responseSchema, frame);
    this.#pending.delete(frame.sequence);
    if (body.ok) pending.resolve({ body, payload: frame.payload });
    else pending.reject(fromReport({ side: 'destination', ...body.error }));
  }

  #end(error: DwcpError): void {
    clearInterval(this.#pinger);
    for (const pending of this.#pending.values()) pending.reject(lost(error));
    this.#pending.clear();
    this.#handlers.closed(error);
  }
}

function json(value: Record<string, unknown>): Buffer {
  return Buffer.from(JSON.stringify(value), 'utf8');
}

function lost(cause?: DwcpError): DwcpError {
  // A refusal by protocol stays what it is: trying again would end the same way.
  if (cause && cause.code !== 'PEER_UNREACHABLE' && cause.code !== 'SESSION_LOST') return cause;
  return new DwcpError('SESSION_LOST', `The control connection ended${cause ? `: ${cause.message}` : ''}`, { cause });
}
