/**
 * The link between hosts: connections that carry messages in order (and batches in any order), with delay, that can be cut at
 * any moment: each end notices in its own time, and what was on the way may have arrived. What is said over it is
 * sim-transport.ts's.
 */
import type { Life } from './life';
import type { SimScheduler } from './scheduler';

export interface LinkListener {
  readonly life: Life;
  /** A connection's first message. */
  accept(end: LinkEnd, hello: unknown): void;
}

const NOTICED_WITHIN_MS = 8_000;

export class LinkEnd {
  /** Who is let in from where is written down. */
  readonly socket = { remoteAddress: '192.0.2.1' };
  readonly life: Life;
  readonly #network: Network;
  other: LinkEnd | undefined;
  closed = false;
  broken = false;
  onMessage: (message: unknown) => void = () => undefined;
  onClosed: (why: string) => void = () => undefined;
  readonly #lane: unknown[] = [];
  #delivering = false;

  constructor(life: Life, network: Network) {
    this.life = life;
    this.#network = network;
    life.onEnd(() => this.#processEnded());
  }

  /** In order. */
  send(message: unknown): void {
    if (!this.closed) this.other?.arrive(message);
  }

  /** In any order, twice now and then. */
  sendLoose(message: unknown): void {
    if (this.closed) return;
    const copies = this.#network.scheduler.random() < 0.03 ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) this.other?.arriveLoose(message);
  }

  arrive(message: unknown): void {
    if (this.closed || this.broken) return;
    this.#lane.push(message);
    this.#deliverNext();
  }

  arriveLoose(message: unknown): void {
    if (this.closed || this.broken) return;
    this.life.post('a batch arrives', () => this.#take(message), this.#network.delayMs());
  }

  /** Ends it from this side; what was sent before still arrives. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.other?.arrive(END);
  }

  /** The path is gone. */
  cut(): void {
    this.broken = true;
    // What was on the way: some of it, from the front.
    const { scheduler } = this.#network;
    if (scheduler.random() < 0.5) this.#lane.length = Math.floor(scheduler.random() * (this.#lane.length + 1));
    this.life.post(
      'notices that the link is cut',
      () => this.#end('the link was cut'),
      scheduler.random() * NOTICED_WITHIN_MS,
    );
  }

  #deliverNext(): void {
    if (this.#delivering || this.#lane.length === 0) return;
    this.#delivering = true;
    this.life.post(
      'a message arrives',
      () => {
        this.#delivering = false;
        const message = this.#lane.shift();
        if (message === END) this.#end('the other side closed it');
        else if (message !== undefined) this.#take(message);
        this.#deliverNext();
      },
      this.#network.delayMs(),
    );
  }

  #take(message: unknown): void {
    if (!this.closed) this.onMessage(message);
  }

  #end(why: string): void {
    if (this.closed) return;
    this.closed = true;
    this.#network.forget(this);
    this.onClosed(why);
  }

  #processEnded(): void {
    this.#network.forget(this);
    if (this.closed) return;
    this.closed = true;
    const { other } = this;
    if (!other || other.broken) return;
    // A kernel says so at once; a host that is gone says nothing.
    if (this.#network.saysNothing(this.life)) other.cut();
    else other.arrive(END);
  }
}

const END = Symbol('end');

export class Network {
  readonly scheduler: SimScheduler;
  readonly #listeners = new Map<string, LinkListener>();
  readonly #ends = new Set<LinkEnd>();
  readonly #silent = new WeakSet<Life>();
  readonly #roundTripMs: number;
  /** Nothing gets through. */
  down = false;

  constructor(scheduler: SimScheduler, roundTripMs: number) {
    this.scheduler = scheduler;
    this.#roundTripMs = roundTripMs;
  }

  get roundTripMs(): number {
    return this.#roundTripMs;
  }

  delayMs(): number {
    return (this.#roundTripMs / 2) * (0.8 + 0.6 * this.scheduler.random());
  }

  listen(place: string, listener: LinkListener): void {
    this.#listeners.set(place, listener);
  }

  unlisten(place: string, life: Life): void {
    if (this.#listeners.get(place)?.life === life) this.#listeners.delete(place);
  }

  /** @param refused nobody listens there @param nothing no answer at all, after the caller's patience */
  dial(
    life: Life,
    place: string,
    hello: unknown,
    { opened, refused, nothing }: { opened: (end: LinkEnd) => void; refused: () => void; nothing: () => void },
  ): void {
    if (this.down) {
      life.post('gives up dialling', nothing, 10_000);
      return;
    }
    life.post(
      `dials ${place}`,
      () => {
        const listener = this.#listeners.get(place);
        if (!listener?.life.alive) {
          refused();
          return;
        }
        const [here, there] = [new LinkEnd(life, this), new LinkEnd(listener.life, this)];
        [here.other, there.other] = [there, here];
        this.#ends.add(here);
        this.#ends.add(there);
        opened(here);
        there.onMessage = (first) => listener.accept(there, first);
        here.send(hello);
      },
      this.delayMs(),
    );
  }

  /** Cuts all that is open. @returns whether anything was */
  cut(): boolean {
    const ends = [...this.#ends].filter((end) => !end.closed);
    for (const end of ends) end.cut();
    return ends.length > 0;
  }

  /** A host crash: its connections end without a word. */
  silence(life: Life): void {
    this.#silent.add(life);
  }

  saysNothing(life: Life): boolean {
    return this.#silent.has(life);
  }

  forget(end: LinkEnd): void {
    this.#ends.delete(end);
  }
}
