/**
 * The keys that what Temporal keeps is encrypted with: AES-256-GCM under the first of them, opened with whichever is named. Sealed
 * bytes are a nonce, the text, its tag; the Go client's are the same (contract/go/codec.go). What of Temporal's is sealed is
 * payload-codec.ts's.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { DwcpError } from '../model/errors';
import { KEY_SIZE_BYTES, keyOfText, readSecretFile } from './secret-file';

const ALGORITHM = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const MAX_KEYS = 16;

export interface SealedBytes {
  readonly keyId: string;
  readonly bytes: Buffer;
}

/** Says what opens a sealed text, and so is bound to it. */
function boundTo(keyId: string): Buffer {
  return Buffer.from(`dwcp payload ${keyId}`);
}

function idOf(key: Buffer): string {
  return createHash('sha256').update('dwcp payload key id').update(key).digest('hex').slice(0, 16);
}

export class PayloadKeys {
  /** By id, the one that encrypts first. */
  readonly #keys: ReadonlyMap<string, Buffer>;

  /**
   * @param path a file of 32 bytes, or of lines that are each a key (64 hexadecimal digits, or base64), `#` before a remark; empty: no keys
   * @throws CONFIG_INVALID where it is anything else, or others may read it
   */
  static read(path: string): PayloadKeys {
    if (path === '') return new PayloadKeys([]);
    const bytes = readSecretFile('payloadKeyFile', path);
    if (bytes.length === KEY_SIZE_BYTES) return new PayloadKeys([bytes]);
    const lines = bytes
      .toString('latin1')
      .split('\n')
      .map((line) => line.replace(/#.*/, '').trim())
      .filter((line) => line !== '');
    const keys = lines.map(keyOfText).filter((key) => key !== undefined);
    if (keys.length === 0 || keys.length !== lines.length || keys.length > MAX_KEYS)
      throw new DwcpError(
        'CONFIG_INVALID',
        `payloadKeyFile ${path} holds neither 32 bytes nor up to ${MAX_KEYS} lines of 64 hexadecimal digits or base64; ` +
          'openssl rand -hex 32 makes one',
      );
    return new PayloadKeys(keys);
  }

  constructor(keys: readonly Buffer[]) {
    this.#keys = new Map(keys.map((key) => [idOf(key), key]));
  }

  get ids(): readonly string[] {
    return [...this.#keys.keys()];
  }

  /** Undefined where there is no key: then nothing is encrypted. */
  seal(text: Uint8Array): SealedBytes | undefined {
    const [first] = this.#keys;
    if (!first) return undefined;
    const [keyId, key] = first;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, key, nonce).setAAD(boundTo(keyId));
    return { keyId, bytes: Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]) };
  }

  /** @throws PAYLOAD_UNREADABLE where its key is not here, or it was changed */
  open(keyId: string, bytes: Uint8Array): Buffer {
    const key = this.#keys.get(keyId);
    if (!key)
      throw new DwcpError(
        'PAYLOAD_UNREADABLE',
        `A payload in Temporal is encrypted with the key ${JSON.stringify(keyId.slice(0, 40))}, which this process has not been given`,
      );
    try {
      const decipher = createDecipheriv(ALGORITHM, key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(boundTo(keyId)).setAuthTag(bytes.subarray(-TAG_BYTES));
      return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
    } catch (cause) {
      throw new DwcpError(
        'PAYLOAD_UNREADABLE',
        `A payload in Temporal does not open with the key ${keyId} that it names: it was changed`,
        { cause },
      );
    }
  }
}
