/**
 * Whole sessions of a source that holds a grant, against the real hub and its handlers: an honest session's messages, left out, doubled, in
 * another order, made wrong, over a control connection and data streams in memory. Every request is answered, by a code where it is
 * refused, or its connection ends with one; whatever stands behind INTERNAL is a fault of the product.
 */

import { DwcpError, errorReportSchema, fromReport } from '../src/model/errors';
import type { DestinationRecord, Mode } from '../src/sync/destination/destination-record';
import type { DestinationHub } from '../src/sync/destination-hub';
import { readBody } from '../src/sync/protocol';
import { FRAME, type Frame, HEADER_BYTES } from '../src/transport/frame';
import { BATCHES } from './fuzz-batches';
import { mutateBytes } from './fuzz-bytes';
import { HONEST_EXTENT, mutatedBatch, mutatedExtent } from './fuzz-decode';
import type { Draw } from './fuzz-draw';
import { mutatedFrame } from './fuzz-frames';
import { ERROR_REPORT, helloFor } from './fuzz-hello';
import { type FuzzHost, openFuzzHost } from './fuzz-host';
import { mutateJson } from './fuzz-json';
import { KEY_TEXT, type Names, REQUESTS } from './fuzz-requests';
import { sealed } from './fuzz-sealed';
import { MemorySocket } from './fuzz-socket';
import { describe, Finding, type Outcome, refusal, type Target } from './fuzz-target';

const ANEW_EVERY = 100;
const IMAGE_BYTES = 4 * 65_536 + 5000;
/** An honest session, whatever its mode; what does not belong to the mode is refused. */
const ORDER: readonly string[] = (
  'prepare open_image manifest page_hashes bases base_pages dictionary references guest_ready batch batch train batch probe ' +
  'guest_begin guest_left open_image finish_image guest_load keep install_image take_over abandon'
).split(' ');
/** The same over the standard transfer's own connection. */
const STANDARD_ORDER =
  'prepare begin extent extent extent open_image begin extent finish guest guest_loaded abandon'.split(' ');
const STANDARD: Readonly<Record<string, (root: string) => Readonly<Record<string, unknown>>>> = {
  begin: () => ({ imageId: 'vda' }),
  finish: (root) => ({ root }),
  guest: () => ({}),
  guest_loaded: () => ({}),
};
const ON_DATA: ReadonlySet<string> = new Set(['batch', 'probe', 'extent']);
const MODES: readonly (Mode | 'itself')[] = ['migrate', 'migrate', 'migrate', 'warm', 'direct', 'itself'];

interface Said {
  readonly ok?: boolean;
  readonly error?: unknown;
  readonly root?: unknown;
}

/** What is said on one connection, and what has come back. */
class Line {
  readonly socket: MemorySocket;
  readonly answers = new Map<number, Outcome>();
  readonly faults: string[] = [];
  ended = false;
  /** Of the image, as it was last told: what makes a finished one. */
  root = KEY_TEXT;
  heard: () => void = () => undefined;

  constructor({ listener }: FuzzHost) {
    this.socket = new MemorySocket((frame) => this.#hear(frame));
    this.socket.once('close', () => {
      this.ended = true;
      this.heard();
    });
    const connection = this.socket.connection(new Set(['hello']));
    listener.awaitHello(connection, 60_000);
  }

  say(bytes: Buffer): void {
    try {
      this.socket.receive(bytes);
    } catch (error) {
      throw new Finding(`thrown into the process: ${describe(error)}`, { cause: error });
    }
  }

  #hear(frame: Frame): void {
    if (frame.type === 'event' && frame.meta.includes('"failed"')) {
      const { error } = JSON.parse(frame.meta.toString()) as Said;
      this.answers.set(-1, this.#outcomeOf(error));
      // As a source does: behind a failure of its own the destination says nothing more.
      setImmediate(() => this.socket.hangUp());
    }
    if (frame.type === 'response' || frame.type === 'refused') {
      const said = JSON.parse(frame.meta.toString()) as Said;
      if (typeof said.root === 'string') this.root = said.root;
      const report = frame.type === 'refused' ? said : said.ok === false ? said.error : undefined;
      this.answers.set(frame.type === 'refused' ? -1 : frame.sequence, this.#outcomeOf(report));
    }
    this.heard();
  }

  #outcomeOf(report: unknown): Outcome {
    if (report === undefined) return 'accepted';
    try {
      return refusal(
        fromReport(readBody(errorReportSchema, { body: report as Record<string, unknown>, payload: Buffer.alloc(0) })),
      );
    } catch (error) {
      // This side's own words, as the connection ended with them: whatever code they had been given.
      if (error instanceof Finding && error.message.endsWith(ERROR_REPORT.message)) return 'accepted';
      this.faults.push(error instanceof Finding ? error.message : describe(error));
      return 'accepted';
    }
  }

  /** Until that many requests are answered, or the connection has ended. */
  async answered(id: number): Promise<void> {
    while (!this.answers.has(id) && !this.ended) await new Promise<void>((resolve) => (this.heard = resolve));
  }
}

function recordOf(mode: Mode, { migrationId, vmId }: Names, { parts }: FuzzHost, draw: Draw): DestinationRecord {
  const guest = {
    ...{ command: ['/bin/true'], ramBlocks: [{ id: 'ram', usedBytes: 65_536 }], qmpPath: '/none', sharedFiles: [] },
  };
  const withGuest = mode === 'migrate' && draw.oneIn(2);
  const place = (imageId: string): string => parts.registry.imagePath(undefined, vmId, imageId);
  const memory = { imageId: 'memory', kind: 'memory' as const, sizeBytes: 65_536, path: place('memory') };
  return {
    ...{ migrationId, vmId, mode, fence: mode === 'migrate' ? 3 : 0, generation: 1, sourceHost: 'a', workflowId: 'w' },
    images: [
      { imageId: 'vda', kind: 'disk', sizeBytes: IMAGE_BYTES, path: place('vda') },
      ...(withGuest ? [memory] : []),
    ],
    ...(withGuest && { guest }),
  };
}

/** An honest order, made wrong in some places. */
function orderOf(honest: readonly string[], draw: Draw): string[] {
  const order = honest.filter(() => !draw.oneIn(5));
  for (let times = draw.below(4); times > 0; times -= 1) {
    const at = draw.below(order.length);
    const moved = draw.oneIn(2) ? order.splice(at, 1) : order.slice(at, at + 1);
    order.splice(draw.below(order.length + 1), 0, ...moved);
  }
  return order;
}

/** @returns the target, and how the hub of the moment judges a hello */
export async function hubTarget(): Promise<{ readonly target: Target; readonly admit: DestinationHub['admit'] }> {
  let host = await openFuzzHost();
  let played = 0;
  const reached: Record<string, number> = {};
  const begin = async (mode: Mode | 'itself', names: Names, draw: Draw): Promise<void> => {
    if (mode === 'itself') return;
    const record = recordOf(mode, names, host, draw);
    if (mode === 'migrate')
      await host.parts.ownership.exclusively(names.vmId, (vm) =>
        vm.append('promised', names.migrationId, record.fence),
      );
    await host.hub.incoming.prepare(record);
  };
  const play = async (draw: Draw, index: number, told: (what: unknown) => void): Promise<Outcome> => {
    const names = { migrationId: `m${index}`, vmId: `vm${index}`, sourceHost: 'a' };
    const mode = draw.pick(MODES);
    await begin(mode, names, draw);
    const said: [string, Buffer][] = [];
    told({ mode, said });
    const control = new Line(host);
    const data = new Line(host);
    const settle = draw.oneIn(8);
    control.say(
      sealed('hello', 0, Buffer.from(JSON.stringify(helloFor(names.migrationId, settle ? 'settle' : 'control')))),
    );
    const standard = draw.oneIn(6);
    data.say(
      sealed('hello', 0, Buffer.from(JSON.stringify(helloFor(names.migrationId, standard ? 'standard' : 'data')))),
    );
    let last: Outcome = 'accepted';
    // Some sessions are honest for long: what lies behind the first steps is reached by these.
    const often = draw.pick([2, 5, 15, 60]);
    for (const [step, method] of orderOf(standard ? STANDARD_ORDER : ORDER, draw).entries()) {
      const id = step + 1;
      const bytes = messageOf(method, id, { ...names, root: control.root }, draw, often);
      said.push([method, bytes.length > 600 ? bytes.subarray(0, 600) : bytes]);
      const line = ON_DATA.has(method) || method in STANDARD ? data : control;
      line.say(bytes);
      if (isWholeRequest(bytes) && draw.below(4) > 0) await line.answered(Number(bytes.readBigUInt64BE(16)));
      else await new Promise((resolve) => setImmediate(resolve));
      const answer = line.answers.get(id);
      last = answer ?? last;
      if (answer === 'accepted') reached[method] = (reached[method] ?? 0) + 1;
      if (line.ended) break;
    }
    control.socket.hangUp();
    data.socket.hangUp();
    await host.hub.dismiss(names.migrationId).catch((error: unknown) => refusal(error));
    for (const fault of [...control.faults, ...data.faults]) throw new Finding(fault);
    return control.answers.get(-1) ?? last;
  };
  const target: Target = {
    name: 'hub',
    share: 1,
    play: async (draw, index, told) => {
      played += 1;
      if (played % ANEW_EVERY === 0) {
        await host.close();
        host = await openFuzzHost();
      }
      return play(draw, index, told);
    },
    reached,
    close: () => host.close(),
  };
  return { target, admit: (hello, connection) => host.hub.admit(hello, connection) };
}

/** What is answered: of one that is cut the other side waits for the rest. */
function isWholeRequest(bytes: Buffer): boolean {
  return (
    bytes.length > HEADER_BYTES &&
    bytes.readUInt8(3) === FRAME.request &&
    bytes.length === HEADER_BYTES + bytes.readUInt32BE(4) + bytes.readUInt32BE(8)
  );
}

/** @param often one in so many is wrong */
function messageOf(method: string, id: number, names: Names, draw: Draw, often: number): Buffer {
  const right = !draw.oneIn(often);
  if (method === 'batch') {
    const { meta, payload } = right ? draw.pick(BATCHES) : mutatedBatch(draw);
    return draw.oneIn(6 * often)
      ? mutatedFrame(draw, draw.oneIn(2) ? 'part' : 'batch')
      : sealed('batch', id, meta, payload);
  }
  if (method === 'probe')
    return right ? sealed('probe', 0, Buffer.alloc(0), Buffer.alloc(1400)) : mutatedFrame(draw, 'probe');
  if (method === 'extent') {
    const { meta, payload } = right ? HONEST_EXTENT : mutatedExtent(draw);
    return sealed('extent', 0, meta, payload);
  }
  const standard = STANDARD[method];
  const example = standard ? { body: ({ root = KEY_TEXT }: Names) => standard(root) } : REQUESTS[method];
  if (!example) throw new DwcpError('INTERNAL', `no example of ${method}`);
  if (draw.oneIn(40))
    return mutatedFrame(draw, draw.pick(['request', 'response', 'event', 'detach', 'refused', 'ping']));
  const body = { ...example.body(names), method };
  const payload = ('payload' in example ? example.payload : undefined) ?? Buffer.alloc(0);
  const wrong = draw.below(3);
  return sealed(
    'request',
    id,
    right || wrong === 0 ? Buffer.from(JSON.stringify(body)) : mutateJson(body, draw),
    right || wrong === 1 ? payload : mutateBytes(payload, draw),
  );
}
