/**
 * What the other end of a connection may answer that can be read by nobody: it ends the connection with a code, every question that was
 * open on it too, and nothing of it is thrown into the process. All of it was found by `npm run bench -- fuzz`.
 */
import { MemorySocket } from '../../bench/fuzz-socket';
import { DwcpError, errorReportSchema } from '../../src/model/errors';
import { openImageSchema, prepareSchema, readBody } from '../../src/sync/protocol';
import { ControlChannel } from '../../src/transport/control-channel';
import { buildFrame, type Frame } from '../../src/transport/frame';
import { refusedFrame } from '../../src/transport/hello';
import { within } from '../helpers/waiting';

interface Ends {
  readonly socket: MemorySocket;
  readonly channel: ControlChannel;
  readonly written: Frame[];
  readonly ended: DwcpError[];
}

const open = new Set<MemorySocket>();

// Ends their timers.
afterEach(() => {
  for (const socket of open) socket.hangUp();
  open.clear();
});

function ends(): Ends {
  const written: Frame[] = [];
  const ended: DwcpError[] = [];
  const socket = new MemorySocket((frame) => written.push(frame));
  open.add(socket);
  const channel = new ControlChannel(socket.connection(new Set()), {
    request: () => Promise.resolve({ body: {} }),
    event: () => undefined,
    closed: (error) => ended.push(error),
  });
  return { socket, channel, written, ended };
}

test.each([
  ['no JSON', '{'],
  ['no answer', '{}'],
  ['a refusal without a code', '{"ok":false,"error":{}}'],
])('a response that is %s ends the question that it answers', async (_what, meta) => {
  const { socket, channel, ended } = ends();
  const asked = channel.request('train', {});
  socket.receive(buildFrame('response', 1, Buffer.from(meta)));
  await expect(within(5000, 'the end of the question', asked)).rejects.toMatchObject({ code: 'PROTOCOL_VIOLATION' });
  expect(ended).toMatchObject([{ code: 'PROTOCOL_VIOLATION' }]);
});

test('a refusal in words that grow when they are read ends the connection, and no process', () => {
  const { socket, written, ended } = ends();
  const bad = Buffer.alloc(1900, 0xff);
  const meta = Buffer.concat([
    Buffer.from('{"code":"DISK_FULL","message":"'),
    bad,
    Buffer.from('","hint":"'),
    bad,
    Buffer.from('"}'),
  ]);
  socket.receive(buildFrame('refused', 0, meta));
  expect(ended).toMatchObject([{ code: 'DISK_FULL' }]);
  const told = written.find(({ type }) => type === 'refused');
  expect(JSON.parse(told?.meta.toString() ?? '')).toMatchObject({ code: 'DISK_FULL' });
});

test('whatever an error says, its report can be read by the other side, and its refusal fits a frame', () => {
  for (const character of ['x', '€', '\u0001', '\ud800', '\ufffd', '"']) {
    const error = new DwcpError('DISK_FULL', character.repeat(70_000), { hint: character.repeat(5000) });
    expect(errorReportSchema.safeParse(error.report()).success).toBe(true);
    expect(refusedFrame(error).length).toBeLessThanOrEqual(32 + 4096);
  }
});

test('what a peer names its fields does not make a refusal long, nor one of several lines', () => {
  const payload = Buffer.alloc(0);
  const record = { [`a\n${'b'.repeat(60_000)}`]: 1 };
  const refusal = (work: () => unknown): DwcpError => {
    try {
      work();
    } catch (error) {
      return error as DwcpError;
    }
    throw new Error('it was accepted');
  };
  for (const error of [
    refusal(() => readBody(prepareSchema, { body: { record }, payload })),
    refusal(() => readBody(openImageSchema, { body: {}, payload })),
  ]) {
    expect(error.code).toBe('PROTOCOL_VIOLATION');
    expect(error.message.length).toBeLessThan(600);
    expect(error.message).not.toContain('\n');
  }
});
