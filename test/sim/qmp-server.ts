/**
 * A QEMU's monitors: one client at a time on each, a greeting, capabilities first, a line for each command and its answer, and
 * events to whoever has negotiated. Whoever connects while another is connected hears nothing until that one is gone.
 */
import type { Life } from './life';
import type { Listener, ProcessSockets, SimSocket } from './sim-net';

/** A refusal in QEMU's words. */
export class QmpRefusal extends Error {}

export type Execute = (command: string, parameters: Readonly<Record<string, unknown>>) => unknown;

const GREETING = { QMP: { version: { qemu: { major: 10, minor: 0, micro: 2 }, package: 'sim' }, capabilities: [] } };

class Monitor {
  readonly #life: Life;
  readonly #execute: Execute;
  readonly #waiting: (() => SimSocket)[] = [];
  #client: SimSocket | undefined;
  #negotiated = false;
  #rest = '';

  constructor(life: Life, execute: Execute) {
    this.#life = life;
    this.#execute = execute;
  }

  readonly connection: Listener['connection'] = (accept) => {
    this.#waiting.push(accept);
    this.#next();
  };

  announce(line: string): void {
    if (this.#negotiated) this.#client?.write(line);
  }

  #next(): void {
    if (this.#client) return;
    const socket = this.#waiting.shift()?.();
    if (!socket) return;
    this.#client = socket;
    this.#negotiated = false;
    this.#rest = '';
    socket.on('error', () => undefined);
    socket.on('close', () => {
      if (this.#client !== socket) return;
      this.#client = undefined;
      this.#next();
    });
    socket.on('data', (chunk: Buffer) => this.#take(socket, chunk));
    socket.write(`${JSON.stringify(GREETING)}\r\n`);
  }

  #take(socket: SimSocket, chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString('utf8')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#life.post('a QMP command', () => this.#command(socket, line));
  }

  #command(socket: SimSocket, line: string): void {
    const {
      execute,
      arguments: parameters = {},
      id,
    } = JSON.parse(line) as { execute: string; arguments?: Record<string, unknown>; id: number };
    const answer = (value: unknown): void => {
      if (!socket.destroyed) socket.write(`${JSON.stringify(value)}\r\n`);
    };
    try {
      if (execute === 'qmp_capabilities') {
        this.#negotiated = true;
        answer({ return: {}, id });
      } else if (!this.#negotiated)
        answer({
          error: { class: 'CommandNotFound', desc: 'Expecting capabilities negotiation with qmp_capabilities' },
          id,
        });
      else answer({ return: this.#execute(execute, parameters) ?? {}, id });
    } catch (error) {
      if (!(error instanceof QmpRefusal)) throw error;
      answer({ error: { class: 'GenericError', desc: error.message }, id });
    }
  }
}

export class QmpServer {
  readonly #monitors: Monitor[] = [];
  readonly #life: Life;
  readonly #clock: () => number;

  constructor(life: Life, clock: () => number) {
    this.#life = life;
    this.#clock = clock;
  }

  listen(sockets: ProcessSockets, path: string, execute: Execute): void {
    const monitor = new Monitor(this.#life, execute);
    this.#monitors.push(monitor);
    sockets.listen(path, monitor.connection);
  }

  event(name: string, data: Readonly<Record<string, unknown>> = {}): void {
    const nowMs = this.#clock();
    const seconds = Math.floor(nowMs / 1_000);
    const timestamp = { seconds, microseconds: Math.floor((nowMs - seconds * 1_000) * 1_000) };
    const line = `${JSON.stringify({ event: name, data, timestamp })}\r\n`;
    for (const monitor of this.#monitors) monitor.announce(line);
  }
}
