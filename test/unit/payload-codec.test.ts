/** The payload codec and its server: what is sealed, with which key, and who may ask to have it opened. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import { type CodecServer, type CodecServerOptions, startCodecServer } from '../../src/control/codec-server';
import { EncryptionCodec } from '../../src/control/payload-codec';
import { SEARCH_ATTRIBUTES } from '../../src/model/names';
import { PayloadKeys } from '../../src/store/payload-keys';
import { temporaryFolder } from '../helpers/data';

const FIRST = '01'.repeat(32);
const SECOND = '02'.repeat(32);

function keysIn(content: string | Buffer): PayloadKeys {
  const path = join(temporaryFolder(), 'keys');
  writeFileSync(path, content, { mode: 0o600 });
  return PayloadKeys.read(path);
}

const payloadOf = (value: unknown): Payload => defaultPayloadConverter.toPayload(value);
const valueOf = (payload: Payload | undefined): unknown => defaultPayloadConverter.fromPayload(payload!);

const refused: unknown = expect.objectContaining({ code: 'CONFIG_INVALID' });
const reading = (read: () => unknown): unknown => {
  try {
    return read();
  } catch (error) {
    return error;
  }
};

test('docs/security.md names all that stays plain to be searched by', () => {
  const text = readFileSync(join(__dirname, '..', '..', '..', 'docs', 'security.md'), 'utf8');
  for (const name of Object.keys(SEARCH_ATTRIBUTES)) expect(text).toContain(`\`${name}\``);
});

describe('a key file', () => {
  test('is 32 bytes, hexadecimal or base64: the same key, by the same id', () => {
    const key = Buffer.alloc(32, 1);
    const [id] = keysIn(key).ids;
    expect(keysIn(`${FIRST}\n`).ids).toEqual([id]);
    expect(keysIn(`# since 2026-11\n\n${key.toString('base64')}  # a remark\r\n`).ids).toEqual([id]);
    expect(keysIn(`${SECOND}\n${FIRST}`).ids).toEqual([keysIn(SECOND).ids[0], id]);
    expect(PayloadKeys.read('').ids).toEqual([]);
  });

  test.each(['', '# none', 'abc', `${FIRST}\n12`, `${FIRST}\n`.repeat(17)])('is nothing else: %j', (content) => {
    expect(reading(() => keysIn(content))).toEqual(refused);
  });

  test('is its owner’s alone', () => {
    const path = join(temporaryFolder(), 'keys');
    writeFileSync(path, FIRST);
    chmodSync(path, 0o640);
    expect(reading(() => PayloadKeys.read(path))).toEqual(refused);
    expect(reading(() => PayloadKeys.read(`${path}.none`))).toEqual(refused);
  });
});

describe('the codec', () => {
  const payload = payloadOf({ vmId: 'web-7' });

  test('seals each payload anew, under the first key, and opens with any', async () => {
    const both = new EncryptionCodec(keysIn(`${SECOND}\n${FIRST}`));
    const sealed = await both.encode([payload, payload]);
    expect(Buffer.from(sealed[0]!.data!).equals(Buffer.from(sealed[1]!.data!))).toBe(false);
    for (const { data, metadata } of sealed) {
      expect(Buffer.from(data!).includes('web-7')).toBe(false);
      expect(Object.keys(metadata!).sort()).toEqual(['encoding', 'encryption-key-id']);
    }
    expect((await new EncryptionCodec(keysIn(SECOND)).decode(sealed)).map(valueOf)).toEqual(
      [payload, payload].map(valueOf),
    );
    await expect(new EncryptionCodec(keysIn(FIRST)).decode(sealed)).rejects.toMatchObject({
      code: 'PAYLOAD_UNREADABLE',
      message: expect.stringContaining('has not been given') as string,
    });
  });

  test('lets pass what is in the clear, and seals nothing without a key', async () => {
    const none = new EncryptionCodec(PayloadKeys.read(''));
    expect(await none.encode([payload])).toEqual([payload]);
    expect(await new EncryptionCodec(keysIn(FIRST)).decode([payload])).toEqual([payload]);
  });

  test('opens nothing that was changed: nonce, text, tag, length, key', async () => {
    const keys = new EncryptionCodec(keysIn(`${FIRST}\n${SECOND}`));
    const [sealed] = await keys.encode([payload]);
    const length = sealed!.data!.length;
    const changed = [0, 12, 20, length - 1].map((at) => {
      const data = Buffer.from(sealed!.data!);
      data[at]! ^= 1;
      return { ...sealed!, data };
    });
    const [, second] = keysIn(`${FIRST}\n${SECOND}`).ids;
    const others = [
      ...[0, 5, 20, length - 1].map((end) => ({ ...sealed!, data: sealed!.data!.slice(0, end) })),
      { ...sealed!, metadata: { ...sealed!.metadata, 'encryption-key-id': Buffer.from(second!) } },
      { ...sealed!, metadata: { encoding: Buffer.from('binary/encrypted') } },
    ];
    for (const each of [...changed, ...others])
      await expect(keys.decode([each])).rejects.toMatchObject({ code: 'PAYLOAD_UNREADABLE' });
  });

  test('opens the payload of the contract, as the Go client does', async () => {
    const path = join(__dirname, '..', '..', '..', 'contract', 'go', 'testdata', 'sealed-payload.json');
    const { metadata, data } = JSON.parse(readFileSync(path, 'utf8')) as {
      readonly metadata: Record<string, string>;
      readonly data: string;
    };
    const bytes = (text: string): Buffer => Buffer.from(text, 'base64');
    const sealed = {
      metadata: Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, bytes(value)])),
      data: bytes(data),
    };
    const [opened] = await new EncryptionCodec(keysIn(FIRST)).decode([sealed]);
    expect(valueOf(opened)).toEqual({ vmId: 'web-7' });
  });
});

describe('the codec server', () => {
  const running: CodecServer[] = [];
  afterEach(async () => {
    for (const server of running.splice(0)) {
      server.close();
      await server.ended;
    }
  });

  async function start(given: Partial<CodecServerOptions> = {}): Promise<CodecServer> {
    const server = await startCodecServer({
      keys: keysIn(FIRST),
      address: '127.0.0.1',
      port: 0,
      origins: ['http://127.0.0.1:8080'],
      token: '',
      ...given,
    });
    running.push(server);
    return server;
  }

  interface Answer {
    readonly status: number;
    readonly headers: Readonly<Record<string, unknown>>;
    readonly text: string;
  }

  /** Not fetch(): a browser’s headers are for a browser to set. */
  function ask(url: string, method: string, headers: Record<string, string>, body = ''): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const asked = request(url, { method, headers }, (response) => {
        let text = '';
        response.on('data', (part: Buffer) => (text += part.toString()));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      });
      asked.on('error', reject);
      asked.end(body);
    });
  }

  async function sealedBody(): Promise<string> {
    const sealed = await new EncryptionCodec(keysIn(FIRST)).encode([payloadOf('shown')]);
    const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    return JSON.stringify({
      payloads: sealed.map(({ metadata, data }) => ({
        metadata: Object.fromEntries(Object.entries(metadata!).map(([key, value]) => [key, text(value)])),
        data: text(data!),
      })),
    });
  }

  test('shows plain text to the UI’s page, and has its words sealed', async () => {
    const { url } = await start();
    const origin = { origin: 'http://127.0.0.1:8080' };
    const preflight = await ask(`${url}/decode`, 'OPTIONS', origin);
    expect([preflight.status, preflight.headers['access-control-allow-origin']]).toEqual([204, origin.origin]);
    const shown = await ask(`${url}/decode`, 'POST', origin, await sealedBody());
    expect(shown.status).toBe(200);
    const { payloads } = JSON.parse(shown.text) as { readonly payloads: readonly { readonly data: string }[] };
    expect(Buffer.from(payloads[0]!.data, 'base64').toString()).toBe('"shown"');
    const sealed = await ask(`${url}/encode`, 'POST', origin, shown.text);
    expect(Buffer.from(sealed.text).includes(payloads[0]!.data)).toBe(false);
    expect((await ask(`${url}/decode`, 'POST', origin, sealed.text)).text).toBe(shown.text);
  });

  test('answers no page of another origin, nobody without the token, and nothing else', async () => {
    const { url } = await start({ token: 'a-token-of-some-length' });
    const body = await sealedBody();
    const bearer = { authorization: 'Bearer a-token-of-some-length' };
    const statuses: number[] = [];
    for (const [path, method, headers, text] of [
      ['/decode', 'POST', bearer, body],
      ['/decode', 'POST', {}, body],
      ['/decode', 'POST', { authorization: 'Bearer a-token-of-some-lengtH' }, body],
      ['/decode', 'POST', { ...bearer, origin: 'http://evil.example' }, body],
      ['/decode', 'OPTIONS', { origin: 'null' }, ''],
      ['/', 'GET', bearer, ''],
      ['/decode', 'POST', bearer, '{"payloads":[{"data":"%"}]}'],
      ['/decode', 'POST', bearer, 'x'.repeat(17 * 1024 * 1024)],
    ] as const) {
      const { status, headers: got } = await ask(`${url}${path}`, method, headers, text).catch(() => ({
        status: 413,
        headers: {},
      }));
      statuses.push(status);
      expect(got).not.toHaveProperty('access-control-allow-origin');
    }
    expect(statuses).toEqual([200, 401, 401, 403, 403, 404, 400, 413]);
  });

  test('does not start without a key, nor on other addresses without a token', async () => {
    await expect(start({ keys: PayloadKeys.read('') })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(start({ address: '0.0.0.0' })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});
