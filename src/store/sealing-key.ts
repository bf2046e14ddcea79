/**
 * The key that baselines are sealed with, and what a sealed file's bytes are: AES-256 in counter mode, a key of its own for
 * each sealing (HKDF of the host's key and a salt), the counter being the place in the file. Blocks of zeros stay zeros, so
 * that sparse files stay sparse; whole blocks are authenticated by their BLAKE3 in the manifest. Who seals what, and when,
 * is baseline-sealer.ts's.
 */
import { createCipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { isZero } from '../encoder/zero';
import { DwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES } from '../model/image';
import { KEY_SIZE_BYTES, keyOfText, readSecretFile } from './secret-file';

const AES_BLOCK_BYTES = 16;

export const sealSchema = z.strictObject({
  /** Tells keys apart; says nothing of the key. */
  keyId: z.string().regex(/^[0-9a-f]{16}$/),
  salt: z.string().regex(/^[0-9a-f]{32}$/),
  /** False while blocks of the file are still as they were; each is recognised by its hash. */
  complete: z.boolean(),
});
export type Seal = z.infer<typeof sealSchema>;

/** What opens one sealed file. */
export interface ContentCipher {
  readonly key: Uint8Array;
}

export class SealingKey {
  readonly id: string;
  readonly #key: Buffer;

  /** @param path a file of 32 bytes, or of 64 hexadecimal digits @throws CONFIG_INVALID where it is anything else, or others may read it */
  static read(path: string): SealingKey | undefined {
    if (path === '') return undefined;
    const bytes = readSecretFile('baselineKeyFile', path);
    const key = bytes.length === KEY_SIZE_BYTES ? bytes : keyOfText(bytes.toString('latin1').trim());
    if (!key)
      throw new DwcpError(
        'CONFIG_INVALID',
        `baselineKeyFile ${path} holds neither 32 bytes nor 64 hexadecimal digits; openssl rand -hex 32 makes one`,
      );
    return new SealingKey(key);
  }

  private constructor(key: Buffer) {
    this.#key = key;
    this.id = createHash('sha256').update('dwcp key id').update(key).digest('hex').slice(0, 16);
  }

  newSeal(): Seal {
    return { keyId: this.id, salt: randomBytes(16).toString('hex'), complete: false };
  }

  /** Undefined where it was sealed with another key. */
  cipherOf({ keyId, salt }: Seal): ContentCipher | undefined {
    if (keyId !== this.id) return undefined;
    return {
      key: new Uint8Array(hkdfSync('sha256', this.#key, Buffer.from(salt, 'hex'), 'dwcp baseline', KEY_SIZE_BYTES)),
    };
  }
}

/** Seals or opens, in place, what lies at `position` of a file: whole blocks, the last one of the file perhaps shorter. */
export function applyCipher({ key }: ContentCipher, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length; at += BLOCK_SIZE_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_SIZE_BYTES);
    if (isZero(block)) continue;
    const counter = Buffer.alloc(AES_BLOCK_BYTES);
    counter.writeBigUInt64BE(BigInt((position + at) / AES_BLOCK_BYTES), 8);
    createCipheriv('aes-256-ctr', key, counter).update(block).copy(block);
  }
}
