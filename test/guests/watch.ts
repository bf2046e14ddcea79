/** One connection to a QEMU's monitor that stays, as somebody else's: it counts the guest's stops, and says whatever it is told to. */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { wait } from '../../src/system/wait';

const CONNECT_MS = 10_000;

interface Line {
  readonly QMP?: unknown;
  readonly event?: string;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

export class Watch {
  /** How often the guest has been stopped. */
  stops = 0;
  readonly #socket: Socket;
  readonly #answers = new Map<number, (line: Line) => void>();
  #id = 0;

  /** Its socket is there a moment before anybody listens. */
  static async at(path: string): Promise<Watch> {
    for (const deadline = performance.now() + CONNECT_MS; ; ) {
      const watch = new Watch(path);
      try {
        await watch.say('qmp_capabilities');
        return watch;
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await wait(50);
      }
    }
  }

  private constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('error', () => this.close());
    this.#socket.once('close', () => this.close());
    const lines = createInterface(this.#socket);
    // It hands on the socket's own.
    lines.on('error', () => this.close());
    lines.on('line', (text) => {
      const line = JSON.parse(text) as Line;
      if (line.event === 'STOP') this.stops += 1;
      if (line.id !== undefined) this.#answers.get(line.id)?.(line);
    });
  }

  /** @throws QEMU's own refusal */
  async say(execute: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const id = (this.#id += 1);
    const answer = new Promise<Line>((resolve) => this.#answers.set(id, resolve));
    this.#socket.write(`${JSON.stringify({ execute, arguments: parameters, id })}\n`);
    // What has closed meanwhile answers nothing.
    if (this.#socket.destroyed) this.close();
    const { error, return: value } = await answer;
    if (error) throw new Error(`${execute}: ${error.desc}`);
    return value;
  }

  close(): void {
    this.#socket.destroy();
    for (const answer of this.#answers.values()) answer({ error: { desc: 'the monitor was closed' } });
  }
}
