/**
 * Real sessions: a peer that is known by its key, over TLS on loopback, to a host that listens; what it says are a hello and frames made
 * wrong. Few, for each costs a handshake: that what the other targets play in memory is not another thing on a socket.
 */
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { errorReportSchema } from '../src/model/errors';
import { FRAME, type Frame, type FrameType, HEADER_BYTES } from '../src/transport/frame';
import { FrameReader } from '../src/transport/frame-reader';
import { mintGrant } from '../src/transport/grants';
import { TLS_RULES } from '../src/transport/peer-security';
import { CredentialFiles } from '../src/trust/credential-files';
import { chunksOf } from './fuzz-bytes';
import { mutatedFrame } from './fuzz-frames';
import { helloFor } from './fuzz-hello';
import { openFuzzHost } from './fuzz-host';
import { mutateJson } from './fuzz-json';
import { REQUESTS } from './fuzz-requests';
import { sealed } from './fuzz-sealed';
import { Finding, type Outcome, type Target } from './fuzz-target';

const ALL: ReadonlySet<FrameType> = new Set(Object.keys(FRAME) as FrameType[]);
const NO_TLS = { tlsCert: '', tlsKey: '', tlsCa: '', tlsCrl: '' };
const FRAMES = [
  'request',
  'request',
  'request',
  'batch',
  'part',
  'event',
  'ping',
  'extent',
  'probe',
  'detach',
  'refused',
  'tunnel',
] as const;

/** Reads what the host says, and holds it against what may be said. */
function listen(socket: TLSSocket): { readonly outcome: () => Outcome } {
  let outcome: Outcome = 'accepted';
  const hear = (frame: Frame): void => {
    if (frame.type !== 'refused' && frame.type !== 'response') return;
    const said = JSON.parse(frame.meta.toString()) as { readonly ok?: boolean; readonly error?: unknown };
    if (frame.type === 'response' && said.ok === true) return;
    const report = errorReportSchema.safeParse(frame.type === 'refused' ? said : said.error);
    if (!report.success || report.data.code === 'INTERNAL') outcome = 'INTERNAL';
    else if (outcome !== 'INTERNAL') outcome = report.data.code as Outcome;
  };
  const reader = new FrameReader(ALL, {
    allocate: ({ metaBytes, payloadBytes }) => Buffer.alloc(HEADER_BYTES + metaBytes + payloadBytes),
    deliver: hear,
  });
  socket.on('data', (chunk: Buffer) => void reader.push(chunk));
  return { outcome: () => outcome };
}

export async function tlsTarget(): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-fuzz-tls-'));
  const host = await openFuzzHost();
  mkdirSync(join(folder, 'a'));
  const files = await CredentialFiles.open('a', join(folder, 'a'), NO_TLS);
  host.admit('a', files.credentials.cert);
  return {
    name: 'tls',
    share: 1,
    play: async (draw, index, told): Promise<Outcome> => {
      const sessionId = `t${index}`;
      const role = draw.pick(['control', 'control', 'control', 'standard', 'settle', 'data', 'idle'] as const);
      const purpose =
        role === 'idle'
          ? ({ purpose: 'peer', subject: 'a' } as const)
          : ({ purpose: 'session', subject: sessionId } as const);
      const grant = mintGrant(host.parts.key, { ...purpose, holder: 'a' }, 3_600_000);
      const hello = { ...helloFor(sessionId, role), grant };
      const names = { migrationId: sessionId, vmId: `vm${index}`, sourceHost: 'a' };
      const prepare = { ...REQUESTS.prepare?.body(names), method: 'prepare' };
      const stream = Buffer.concat([
        sealed('hello', 0, draw.oneIn(6) ? mutateJson(hello, draw) : Buffer.from(JSON.stringify(hello))),
        ...(draw.oneIn(2) ? [sealed('request', 1, Buffer.from(JSON.stringify(prepare)))] : []),
        ...Array.from({ length: draw.below(8) }, () => mutatedFrame(draw, draw.pick(FRAMES))),
      ]);
      told(stream);
      const socket = connect({
        host: '127.0.0.1',
        port: host.port,
        ...files.credentials,
        ...TLS_RULES,
        checkServerIdentity: () => undefined,
      });
      socket.on('error', () => undefined);
      const closed = once(socket, 'close');
      const { outcome } = listen(socket);
      for (const chunk of chunksOf(stream, draw).slice(0, 300)) socket.write(chunk);
      socket.end();
      await closed;
      if (outcome() === 'INTERNAL') throw new Finding('the host answers INTERNAL, or what cannot be read');
      return outcome();
    },
    close: async () => {
      await host.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
