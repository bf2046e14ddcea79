/**
 * What the processes of one user share about whom to believe: `~/.local/share/dwcp/trust`, 0700, made by whoever is first.
 *
 *   control.key      Ed25519, PKCS #8: what warrants are signed with; only where the control plane runs
 *   control.pub      one or more public keys (PEM): whose warrants are believed here
 *   operator.key     Ed25519: what this user's requests are signed with
 *   operators/N.pub  whose requests are believed, each by its name
 *   policy.yaml      which of them may ask for what (policy.ts); without it each may all
 *   hosts/ID.json    {"keys": [pins]}: which keys are host ID's
 *   revoked/ID       an empty file: no key is, whatever hosts/ID.json or a warrant says
 *   joined-by        on a machine that has joined: SHA-256 of the code that it did so by
 *
 * What the files are for is peer-trust.ts's and the warrants'.
 */
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { DwcpError, errnoOf } from '../model/errors';
import { hostIdSchema } from '../model/ids';
import type { ProcessOptions } from '../model/options';
import { pinSchema } from '../model/signed-line';
import { type Asked, objectionOf } from './policy';
import {
  assertPrivate,
  MAX_KEYS,
  namesIn,
  OTHERS_MAY,
  OTHERS_MAY_WRITE,
  privateKey,
  publicKeys,
  readText,
} from './trust-files';

const JOINED_BY = 'joined-by';

const knownHostSchema = z.object({ keys: z.array(pinSchema).max(MAX_KEYS) });
export type KnownHost = z.infer<typeof knownHostSchema>;

export function trustFolderOf({ trustDir }: Pick<ProcessOptions, 'trustDir'>): string {
  return trustDir || join(homedir(), '.local', 'share', 'dwcp', 'trust');
}

function pem(key: KeyObject, type: 'pkcs8' | 'spki'): string {
  return key.export({ type, format: 'pem' }).toString();
}

export class TrustFolder {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @returns undefined where there is none @throws CONFIG_INVALID where others may write what is believed, or read a key */
  static find(path: string): TrustFolder | undefined {
    if (!existsSync(join(path, 'control.pub'))) return undefined;
    assertPrivate(path, OTHERS_MAY_WRITE);
    for (const name of ['control.key', 'operator.key'])
      if (existsSync(join(path, name))) assertPrivate(join(path, name), OTHERS_MAY);
    return new TrustFolder(path);
  }

  /** The folder, made with keys of its own where there is none. Two that are first at a time get the same. */
  static make(path: string): TrustFolder {
    const found = TrustFolder.find(path);
    if (found) return found;
    try {
      makeFolder(path, ['hosts', 'revoked', 'operators'], (write) => {
        const control = generateKeyPairSync('ed25519');
        const operator = generateKeyPairSync('ed25519');
        write('control.key', pem(control.privateKey, 'pkcs8'));
        write('control.pub', pem(control.publicKey, 'spki'));
        write('operator.key', pem(operator.privateKey, 'pkcs8'));
        write(join('operators', 'local.pub'), pem(operator.publicKey, 'spki'));
      });
    } catch (error) {
      if (!['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error;
    }
    const made = TrustFolder.find(path);
    if (made) return made;
    throw new DwcpError('CONFIG_INVALID', `The trust folder ${path} holds other things and no control.pub`, {
      hint: 'Name another with --trust-dir, or put back what was there',
    });
  }

  /** On a machine that has joined: who is believed, and no key that signs. @throws CONFIG_INVALID where there is one already */
  static joined(path: string, controlKeysPem: string, code: string): TrustFolder {
    makeFolder(path, ['hosts', 'revoked'], (write) => {
      write('control.pub', controlKeysPem);
      write(JOINED_BY, digestOf(code));
    });
    return new TrustFolder(path);
  }

  /** Whether that code is another than the one by which this machine has joined; one that has made its folder itself joins by none. */
  joinsAgainBy(code: string): boolean {
    const before = readText(join(this.path, JOINED_BY));
    return before !== undefined && before !== digestOf(code);
  }

  /** What it knows of itself and of the control plane is what it has just been told. @param pin of its own key */
  joinAgain(controlKeysPem: string, code: string, hostId: string, pin: string | undefined): void {
    this.forget(hostId);
    if (pin !== undefined) this.admit(hostId, { keys: [pin] });
    this.#replace('control.pub', controlKeysPem);
    this.#replace(JOINED_BY, digestOf(code));
  }

  controlKeysPem(): string {
    return readText(join(this.path, 'control.pub')) ?? '';
  }

  /** Whose warrants are believed. */
  controlKeys(): KeyObject[] {
    return publicKeys(join(this.path, 'control.pub'));
  }

  controlKey(): KeyObject | undefined {
    return privateKey(join(this.path, 'control.key'));
  }

  operatorKey(): KeyObject | undefined {
    return privateKey(join(this.path, 'operator.key'));
  }

  /** Whose requests are believed, by name. */
  operators(): ReadonlyMap<string, readonly KeyObject[]> {
    const folder = join(this.path, 'operators');
    return new Map(
      namesIn(folder)
        .filter((name) => name.endsWith('.pub'))
        .map((name) => [name.slice(0, -4), publicKeys(join(folder, name))]),
    );
  }

  /** Why this operator may not ask for that, in words; undefined where they may. */
  objectionOf(operator: string, asked: Asked): string | undefined {
    return objectionOf(this.path, operator, asked);
  }

  host(hostId: string): KnownHost | undefined {
    const text = readText(join(this.path, 'hosts', `${hostIdSchema.parse(hostId)}.json`));
    if (text === undefined) return undefined;
    try {
      return knownHostSchema.parse(JSON.parse(text));
    } catch {
      return undefined;
    }
  }

  hosts(): string[] {
    return namesIn(join(this.path, 'hosts'))
      .filter((name) => name.endsWith('.json'))
      .map((name) => name.slice(0, -5))
      .sort();
  }

  isRevoked(hostId: string): boolean {
    return existsSync(join(this.path, 'revoked', hostIdSchema.parse(hostId)));
  }

  admit(hostId: string, host: KnownHost): void {
    const folder = join(this.path, 'hosts');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#replace(
      join('hosts', `${hostIdSchema.parse(hostId)}.json`),
      `${JSON.stringify(knownHostSchema.parse(host))}\n`,
    );
  }

  /** From now on no key is this host's. @returns false where it was not known */
  revoke(hostId: string): boolean {
    const known = this.host(hostId) !== undefined;
    mkdirSync(join(this.path, 'revoked'), { recursive: true, mode: 0o700 });
    writeFileSync(join(this.path, 'revoked', hostIdSchema.parse(hostId)), '', { mode: 0o600 });
    return known;
  }

  /** Nothing is known of this host any more, and it may be let in anew. @returns false where it was not known */
  forget(hostId: string): boolean {
    const known = this.host(hostId) !== undefined || this.isRevoked(hostId);
    rmSync(join(this.path, 'hosts', `${hostIdSchema.parse(hostId)}.json`), { force: true });
    rmSync(join(this.path, 'revoked', hostId), { force: true });
    return known;
  }

  #replace(name: string, text: string): void {
    const path = join(this.path, name);
    const temporary = `${path}.${process.pid}.tmp`;
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, path);
  }
}

function digestOf(code: string): string {
  return createHash('sha256').update(code).digest('hex');
}

/** Whole, or not at all. @throws ENOTEMPTY, EEXIST where there is one already */
function makeFolder(
  path: string,
  folders: readonly string[],
  fill: (write: (name: string, text: string) => void) => void,
): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const beside = mkdtempSync(`${path}.`);
  try {
    for (const name of folders) mkdirSync(join(beside, name), { mode: 0o700 });
    fill((name, text) => writeFileSync(join(beside, name), text, { mode: 0o600 }));
    renameSync(beside, path);
  } catch (error) {
    rmSync(beside, { recursive: true, force: true });
    throw error;
  }
}
