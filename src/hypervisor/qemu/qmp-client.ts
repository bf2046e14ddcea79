/**
 * A connection to one QEMU's monitor: commands with answers in order of their ids, events as they come, a limit to every
 * wait. What the commands are for is the driver's business; their shapes are qmp-schemas.ts.
 *
 *   QEMU: {"QMP": greeting}    we: qmp_capabilities    then   we: {"execute", "arguments", "id"}   QEMU: {"return", "id"}
 *                                                                          or {"error", "id"};  {"event"} at any time
 */
import type { Socket } from 'node:net';
import { DwcpError, messageOf } from '../../model/errors';
import { connectTo } from '../../system/unix-socket';
import {
  greetingSchema,
  messageSchema,
  QMP_RETURNS,
  type QmpCommand,
  type QmpEvent,
  type QmpReturn,
} from './qmp-schemas';

const CONNECT_TIMEOUT_MS = 10_000;
const COMMAND_TIMEOUT_MS = 30_000;
/** The longest line QEMU has reason to send (its own schema) is a quarter of a megabyte. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

interface Waiting {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: DwcpError) => void;
  readonly timer: NodeJS.Timeout;
}

export class QmpClient {
  readonly path: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  /** Who has to hear of the end: waits for events, and the greeting. */
  readonly #ends = new Set<(error: DwcpError) => void>();
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  #nextId = 1;
  #endedWith: DwcpError | undefined;
  #greet: (() => void) | undefined;
  #onEnd: ((error: DwcpError) => void) | undefined;

  /** @throws QEMU_UNREACHABLE, QEMU_TIMEOUT, QEMU_PROTOCOL */
  static async connect(path: string, timeoutMs = CONNECT_TIMEOUT_MS): Promise<QmpClient> {
    const client = new QmpClient(path);
    try {
      await client.#greeting(timeoutMs);
      await client.execute('qmp_capabilities', {}, timeoutMs);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  private constructor(path: string) {
    this.path = path;
    this.#socket = connectTo(path);
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk));
    this.#socket.on('error', (cause) =>
      this.#end(new DwcpError('QEMU_UNREACHABLE', `QEMU's monitor at ${path}: ${messageOf(cause)}`, { cause })),
    );
    this.#socket.on('close', () =>
      this.#end(new DwcpError('QEMU_UNREACHABLE', `QEMU has closed its monitor at ${path}`)),
    );
  }

  get ended(): boolean {
    return this.#endedWith !== undefined;
  }

  /** Called once when the connection ends, whoever ends it. */
  onEnd(handler: (error: DwcpError) => void): void {
    this.#onEnd = handler;
    if (this.#endedWith) handler(this.#endedWith);
  }

  /** @returns what stops it */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** @throws QEMU_REFUSED with QEMU's own words; QEMU_TIMEOUT, QEMU_UNREACHABLE, QEMU_PROTOCOL */
  async execute<C extends QmpCommand>(
    command: C,
    parameters: Readonly<Record<string, unknown>> = {},
    timeoutMs = COMMAND_TIMEOUT_MS,
  ): Promise<QmpReturn<C>> {
    const value = await this.#ask(command, parameters, timeoutMs);
    const parsed = QMP_RETURNS[command].safeParse(value);
    if (!parsed.success)
      throw new DwcpError(
        'QEMU_PROTOCOL',
        `QEMU's answer to ${command} is malformed at ${parsed.error.issues[0]?.path.join('.') ?? '?'}`,
      );
    return parsed.data as QmpReturn<C>;
  }

  /** Waits for an event that has not come yet. Ask for it before what causes it. @throws QEMU_TIMEOUT, QEMU_UNREACHABLE */
  async event(what: string, matches: (event: QmpEvent) => boolean, timeoutMs: number): Promise<QmpEvent> {
    if (this.#endedWith) throw this.#endedWith;
    return new Promise((resolve, reject) => {
      const done = (act: () => void): void => {
        clearTimeout(timer);
        stop();
        this.#ends.delete(ended);
        act();
      };
      const ended = (error: DwcpError): void => done(() => reject(error));
      const timer = setTimeout(
        () =>
          ended(new DwcpError('QEMU_TIMEOUT', `QEMU at ${this.path} did not report ${what} within ${timeoutMs} ms`)),
        timeoutMs,
      );
      const stop = this.onEvent((event) => {
        if (matches(event)) done(() => resolve(event));
      });
      this.#ends.add(ended);
    });
  }

  close(): void {
    this.#end(new DwcpError('QEMU_UNREACHABLE', `The connection to ${this.path} was closed on this side`));
  }

  #greeting(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () =>
          this.#end(
            new DwcpError(
              'QEMU_TIMEOUT',
              `Nothing greets at ${this.path}: is another client connected to this monitor?`,
            ),
          ),
        timeoutMs,
      );
      const ended = (error: DwcpError): void => {
        clearTimeout(timer);
        reject(error);
      };
      this.#ends.add(ended);
      this.#greet = () => {
        clearTimeout(timer);
        this.#ends.delete(ended);
        this.#greet = undefined;
        resolve();
      };
    });
  }

  #ask(command: string, parameters: Readonly<Record<string, unknown>>, timeoutMs: number): Promise<unknown> {
    if (this.#endedWith) return Promise.reject(this.#endedWith);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new DwcpError('QEMU_TIMEOUT', `QEMU at ${this.path} did not answer ${command} within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiting.set(id, { command, resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    });
  }

  #take(chunk: Buffer): void {
    for (let rest = chunk; rest.length > 0; ) {
      const end = rest.indexOf(10);
      const piece = end < 0 ? rest : rest.subarray(0, end);
      this.#pieces.push(piece);
      this.#pieceBytes += piece.length;
      if (this.#pieceBytes > MAX_LINE_BYTES) {
        this.#end(new DwcpError('QEMU_PROTOCOL', `A line of QEMU's monitor is longer than ${MAX_LINE_BYTES} bytes`));
        return;
      }
      if (end < 0) return;
      const line = Buffer.concat(this.#pieces).toString('utf8').trim();
      this.#pieces = [];
      this.#pieceBytes = 0;
      if (line !== '') this.#message(line);
      rest = rest.subarray(end + 1);
    }
  }

  #message(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#end(new DwcpError('QEMU_PROTOCOL', `QEMU's monitor at ${this.path} does not speak JSON`));
      return;
    }
    if (this.#greet) {
      if (greetingSchema.safeParse(value).success) {
        this.#greet();
        return;
      }
      this.#end(new DwcpError('QEMU_PROTOCOL', `What listens at ${this.path} is no QEMU monitor`));
      return;
    }
    const parsed = messageSchema.safeParse(value);
    if (!parsed.success) {
      this.#end(new DwcpError('QEMU_PROTOCOL', `A message of QEMU's monitor at ${this.path} is malformed`));
      return;
    }
    const message = parsed.data;
    if ('event' in message)
      this.#announce({
        name: message.event,
        data: message.data ?? {},
        atMs: message.timestamp.seconds * 1000 + message.timestamp.microseconds / 1000,
      });
    else if (message.id !== undefined) this.#settle(message.id, message);
  }

  #announce(event: QmpEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  #settle(
    id: number,
    message: { readonly return: unknown } | { readonly error: { readonly class: string; readonly desc: string } },
  ): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if ('error' in message)
      waiting.reject(new DwcpError('QEMU_REFUSED', `QEMU refuses ${waiting.command}: ${message.error.desc}`));
    else waiting.resolve(message.return);
  }

  #end(error: DwcpError): void {
    if (this.#endedWith) return;
    this.#endedWith = error;
    this.#socket.destroy();
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
    for (const ended of [...this.#ends]) ended(error);
    this.#ends.clear();
    this.#onEnd?.(error);
  }
}
