/**
 * A TCP relay between two agents: the link of a test, which can be cut. Real sockets on both of its sides; a cut destroys
 * all of them at once and, while it lasts, nothing listens.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

const open = new Set<Relay>();

export class Relay {
  readonly #from: { readonly host: string; readonly port: number };
  readonly #to: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  /** From who has connected to where it goes, of every connection. */
  readonly #ways = new Map<Socket, Socket>();
  #held = false;
  #server: Server | undefined;
  readonly kept: boolean;
  connections = 0;

  /** @param keep it outlives its test, for the next */
  constructor(from: { host: string; port: number }, to: { host: string; port: number }, keep = false) {
    this.#from = from;
    this.#to = to;
    this.kept = keep;
  }

  get listens(): boolean {
    return this.#server !== undefined;
  }

  get port(): number {
    return this.#from.port;
  }

  async listen(): Promise<void> {
    const server = createServer((near) => this.#relay(near));
    this.#server = server;
    open.add(this);
    await new Promise<void>((resolve, reject) =>
      server.once('error', reject).listen(this.#from.port, this.#from.host, resolve),
    );
  }

  /** Destroys every connection; new ones are taken at once. @returns how many connections there were */
  cut(): number {
    const sockets = [...this.#sockets];
    for (const socket of sockets) socket.destroy();
    return sockets.length / 2;
  }

  /** Nothing goes on to where this relay leads, while what comes from there still arrives; no connection ends. */
  holdBack(): void {
    this.#held = true;
    for (const [near, far] of this.#ways) near.unpipe(far).pause();
  }

  letGo(): void {
    this.#held = false;
    for (const [near, far] of this.#ways) near.pipe(far);
  }

  /** Nothing listens from here on, and every connection is destroyed. */
  async close(): Promise<void> {
    open.delete(this);
    const closed = new Promise<void>((resolve) => (this.#server ? this.#server.close(() => resolve()) : resolve()));
    this.#server = undefined;
    this.cut();
    await closed;
  }

  #relay(near: Socket): void {
    const far = connect(this.#to);
    this.connections += 1;
    this.#ways.set(near, far);
    near.on('close', () => this.#ways.delete(near));
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      if (socket !== near || !this.#held) socket.pipe(other);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
  }
}

afterEach(async () => {
  for (const relay of [...open]) if (!relay.kept) await relay.close();
});
