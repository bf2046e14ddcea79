/** One connection to a QEMU's monitor that stays, as somebody else's: it counts the guest's stops, and says whatever it is told to. */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

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

  static async at(path: string): Promise<Watch> {
    const watch = new Watch(path);
    await watch.say('qmp_capabilities');
    return watch;
  }

  private constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('error', () => this.close());
    this.#socket.once('close', () => this.close());
    createInterface(this.#socket).on('line', (text) => {
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
    const { error, return: value } = await answer;
    if (error) throw new Error(`${execute}: ${error.desc}`);
    return value;
  }

  close(): void {
    this.#socket.destroy();
    for (const answer of this.#answers.values()) answer({ error: { desc: 'the monitor was closed' } });
  }
}
