/**
 * What of DWCP lies in Temporal is encrypted here, where there is a key: inputs, results, heartbeats, memos, summaries, and of
 * failures their text too. A process without the key says so in one line. Keys and cipher are src/store/payload-keys.ts's; what
 * stays plain is in docs/security.md.
 */
import { join } from 'node:path';
import type { DataConverter, Payload, PayloadCodec } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { toFailure } from '../../activities/to-failure';
import { DwcpError, toDwcpError } from '../model/errors';
import { PayloadKeys } from '../store/payload-keys';

const { Payload: PayloadMessage } = temporal.api.common.v1;
const ENCRYPTED = 'binary/encrypted';
const KEY_ID = 'encryption-key-id';

/** Where the build puts the bundle whose failures are encrypted. Its converter: failure-converter.ts. */
const FAILURE_CONVERTER = join(__dirname, 'failure-converter.js');

function textOf(bytes: Uint8Array | null | undefined): string {
  return bytes ? Buffer.from(bytes).toString('utf8') : '';
}

export class EncryptionCodec implements PayloadCodec {
  readonly #keys: PayloadKeys;
  readonly #refuse: (error: DwcpError) => Error;

  /** @param refuse what is thrown for a payload that cannot be read; hears of each */
  constructor(keys: PayloadKeys, refuse: (error: DwcpError) => Error = (error) => error) {
    this.#keys = keys;
    this.#refuse = refuse;
  }

  encode(payloads: Payload[]): Promise<Payload[]> {
    return Promise.resolve(payloads.map((payload) => this.#seal(payload)));
  }

  /** What is not encrypted passes: histories of before a key was given go on. */
  decode(payloads: Payload[]): Promise<Payload[]> {
    try {
      return Promise.resolve(payloads.map((payload) => this.#open(payload)));
    } catch (error) {
      return Promise.reject(this.#refuse(toDwcpError(error, 'PAYLOAD_UNREADABLE')));
    }
  }

  #seal(payload: Payload): Payload {
    const sealed = this.#keys.seal(PayloadMessage.encode(payload).finish());
    if (!sealed) return payload;
    return {
      metadata: { encoding: Buffer.from(ENCRYPTED), [KEY_ID]: Buffer.from(sealed.keyId) },
      data: sealed.bytes,
    };
  }

  #open(payload: Payload): Payload {
    if (textOf(payload.metadata?.encoding) !== ENCRYPTED) return payload;
    const opened = this.#keys.open(textOf(payload.metadata?.[KEY_ID]), payload.data ?? new Uint8Array());
    try {
      return PayloadMessage.decode(opened);
    } catch (cause) {
      throw new DwcpError('PAYLOAD_UNREADABLE', 'A payload in Temporal is encrypted, and none behind that', { cause });
    }
  }
}

function converterOf(keys: PayloadKeys, codec: EncryptionCodec): DataConverter {
  return {
    payloadCodecs: [codec],
    ...(keys.ids.length > 0 && { failureConverterPath: FAILURE_CONVERTER }),
  };
}

/** For a client: what cannot be read is an error of ours. */
export function clientConverter(keys: PayloadKeys): DataConverter {
  return converterOf(keys, new EncryptionCodec(keys));
}

/** For a client of a program's own. @param payloadKeyFile as the option of that name @throws CONFIG_INVALID */
export function payloadConverter(payloadKeyFile: string): DataConverter {
  return clientConverter(PayloadKeys.read(payloadKeyFile));
}

/** For a worker: what cannot be read fails the activity with its code. @param tell hears of it once for each message */
export function workerConverter(keys: PayloadKeys, tell: (error: DwcpError) => void): DataConverter {
  const told = new Set<string>();
  const codec = new EncryptionCodec(keys, (error) => {
    if (!told.has(error.message) && told.size < 100) {
      told.add(error.message);
      tell(error);
    }
    return toFailure(error);
  });
  return converterOf(keys, codec);
}
