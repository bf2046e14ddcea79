/**
 * A small NBD client for UNIX sockets: newstyle handshake, structured replies, block status of one meta context, reads
 * straight into the caller's memory. Reading only: nothing here writes to a disk. Big-endian.
 *
 *   handshake  "NBDMAGIC" "IHAVEOPT" u16 flags | u32 flags | options: "IHAVEOPT" u32 option u32 length data
 *              replies: u64 3e889045565a9 u32 option u32 type u32 length data
 *   request    u32 25609513  u16 flags  u16 type  u64 cookie  u64 offset  u32 length
 *   chunk      u32 668e33ef  u16 flags (1 = last)  u16 type  u64 cookie  u32 length  data
 *     type 0 none   1 data: u64 offset, bytes   2 hole: u64 offset, u32 length   5 status: u32 context, (u32 length, u32 flags)*
 *          8001 error: u32 errno, u16 length, text
 *
 * Source: NetworkBlockDevice/nbd, doc/proto.md.
 */
import type { Socket } from 'node:net';
import { DwcpError, messageOf } from '../model/errors';
import { connectTo } from '../system/unix-socket';

const INIT_MAGIC = Buffer.from('NBDMAGICIHAVEOPT', 'latin1');
const OPTION_MAGIC = INIT_MAGIC.subarray(8);
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const OPTION = { go: 7, structuredReply: 8, setMetaContext: 10 } as const;
const REPLY = { ack: 1, info: 3, metaContext: 4 } as const;
const REQUEST_MAGIC = 0x25609513;
const CHUNK_MAGIC = 0x668e33ef;
const SIMPLE_MAGIC = 0x67446698;
const COMMAND = { read: 0, disconnect: 2, blockStatus: 7 } as const;
const CHUNK = { none: 0, data: 1, hole: 2, status: 5, error: 0x8001, errorOffset: 0x8002 } as const;
const MAX_SMALL_CHUNK_BYTES = 1024 * 1024;
const MAX_READ_BYTES = 32 * 1024 * 1024;
const STATUS_STEP_BYTES = 2 ** 30;
/** In base:allocation: reads as zeros. */
const ALLOCATION_ZERO = 2;

export interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

interface Pending {
  readonly offset: number;
  readonly into: Buffer | undefined;
  readonly extents: NbdExtent[];
  error: string | undefined;
  readonly settle: (error?: DwcpError) => void;
}

export class NbdClient {
  sizeBytes = 0;
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #nextCookie = 1n;
  #rest: Buffer[] = [];
  #restBytes = 0;
  #wanted:
    | { readonly bytes: number; readonly resolve: (bytes: Buffer) => void; readonly reject: (error: DwcpError) => void }
    | undefined;
  /** Bytes of a data chunk that are still to come, and where they go. */
  #data: { pending: Pending; at: number; left: number; last: boolean; cookie: bigint } | undefined;
  #ended: DwcpError | undefined;
  #handshaken = false;

  /** @param context a meta context whose extents are wanted, such as `qemu:dirty-bitmap:NAME` */
  static async connect(path: string, exportName: string, context?: string): Promise<NbdClient> {
    const client = new NbdClient(path);
    try {
      await client.#handshake(exportName, context);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  private constructor(path: string) {
    this.#socket = connectTo(path);
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        this.#take(chunk);
      } catch (error) {
        this.#end(refused(messageOf(error)));
      }
    });
    this.#socket.on('error', (cause) => this.#end(refused(messageOf(cause))));
    this.#socket.on('close', () => this.#end(refused('it closed the connection')));
  }

  /** Reads a stretch into `into`, as long as that is. @throws IMAGE_UNREADABLE */
  read(offset: number, into: Buffer): Promise<void> {
    if (into.length > MAX_READ_BYTES) throw new RangeError('read in pieces');
    return this.#request(COMMAND.read, offset, into.length, into).then(() => undefined);
  }

  /** Extents of the meta context over the whole export. */
  async extents(): Promise<NbdExtent[]> {
    const all: NbdExtent[] = [];
    for (let at = 0; at < this.sizeBytes; ) {
      const found = await this.#request(COMMAND.blockStatus, at, Math.min(STATUS_STEP_BYTES, this.sizeBytes - at));
      const reached = found.reduce((sum, extent) => sum + extent.length, 0);
      if (reached === 0) throw refused('a block status without extents');
      all.push(...found);
      at += reached;
    }
    return all;
  }

  close(): void {
    if (!this.#ended && this.#handshaken) this.#socket.write(request(COMMAND.disconnect, 0n, 0, 0));
    this.#end(refused('the connection was closed on this side'));
  }

  async #handshake(exportName: string, context: string | undefined): Promise<void> {
    const hello = await this.#read(18);
    if (!hello.subarray(0, 16).equals(INIT_MAGIC)) throw refused('what listens there is no NBD server');
    this.#socket.write(Buffer.from([0, 0, 0, 3]));
    this.#option(OPTION.structuredReply, Buffer.alloc(0));
    await this.#replies(OPTION.structuredReply);
    const name = Buffer.from(exportName, 'utf8');
    if (context !== undefined) {
      const query = Buffer.from(context, 'utf8');
      this.#option(OPTION.setMetaContext, Buffer.concat([u32(name.length), name, u32(1), u32(query.length), query]));
      const contexts = (await this.#replies(OPTION.setMetaContext)).filter(({ type }) => type === REPLY.metaContext);
      if (contexts.length !== 1) throw refused(`it has no ${context}`);
    }
    this.#option(OPTION.go, Buffer.concat([u32(name.length), name, Buffer.alloc(2)]));
    const info = (await this.#replies(OPTION.go)).find(
      ({ type, data }) => type === REPLY.info && data.readUInt16BE(0) === 0,
    );
    if (!info) throw refused('it does not say how large the export is');
    this.sizeBytes = Number(info.data.readBigUInt64BE(2));
    this.#handshaken = true;
    this.#drain();
  }

  #option(option: number, data: Buffer): void {
    this.#socket.write(Buffer.concat([OPTION_MAGIC, u32(option), u32(data.length), data]));
  }

  async #replies(option: number): Promise<{ type: number; data: Buffer }[]> {
    for (const replies: { type: number; data: Buffer }[] = []; ; ) {
      const head = await this.#read(20);
      if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || head.readUInt32BE(8) !== option)
        throw refused('its handshake is malformed');
      const [type, length] = [head.readUInt32BE(12), head.readUInt32BE(16)];
      if (length > MAX_SMALL_CHUNK_BYTES) throw refused('its handshake is malformed');
      const data = length > 0 ? await this.#read(length) : Buffer.alloc(0);
      if (type >= 2 ** 31)
        throw refused(`it refuses option ${option}: ${data.toString('utf8') || `error ${type - 2 ** 31}`}`);
      if (type === REPLY.ack) return replies;
      replies.push({ type, data });
    }
  }

  #read(bytes: number): Promise<Buffer> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#wanted = { bytes, resolve, reject };
      this.#drain();
    });
  }

  #request(type: number, offset: number, length: number, into?: Buffer): Promise<NbdExtent[]> {
    if (this.#ended) return Promise.reject(this.#ended);
    const cookie = this.#nextCookie++;
    return new Promise((resolve, reject) => {
      const extents: NbdExtent[] = [];
      this.#pending.set(cookie, {
        offset,
        into,
        extents,
        error: undefined,
        settle: (error) => (error ? reject(error) : resolve(extents)),
      });
      this.#socket.write(request(type, cookie, offset, length));
    });
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    if (this.#data && this.#restBytes === 0) rest = this.#fill(rest);
    if (rest.length === 0) return;
    this.#rest.push(rest);
    this.#restBytes += rest.length;
    this.#drain();
  }

  #fill(chunk: Buffer): Buffer {
    const data = this.#data;
    if (!data) return chunk;
    const taken = Math.min(data.left, chunk.length);
    chunk.copy(data.pending.into ?? Buffer.alloc(0), data.at, 0, taken);
    data.at += taken;
    data.left -= taken;
    if (data.left === 0) {
      this.#data = undefined;
      if (data.last) this.#finish(data.cookie, data.pending);
    }
    return chunk.subarray(taken);
  }

  #drain(): void {
    for (;;) {
      if (this.#data && this.#restBytes > 0) {
        this.#keep(this.#fill(this.#whole()));
        if (this.#restBytes === 0) return;
        continue;
      }
      if (!this.#handshaken) {
        const wanted = this.#wanted;
        if (!wanted || this.#restBytes < wanted.bytes) return;
        this.#wanted = undefined;
        const all = this.#whole();
        this.#keep(all.subarray(wanted.bytes));
        wanted.resolve(all.subarray(0, wanted.bytes));
        return;
      }
      if (this.#restBytes < 16 || !this.#chunk()) return;
    }
  }

  /** One chunk's head, and its data where that is small. @returns false where more bytes are needed */
  #chunk(): boolean {
    const all = this.#whole();
    if (all.readUInt32BE(0) === SIMPLE_MAGIC) {
      const cookie = all.readBigUInt64BE(8);
      const pending = this.#known(cookie);
      if (all.readUInt32BE(4) !== 0) pending.error = `error ${all.readUInt32BE(4)}`;
      this.#keep(all.subarray(16));
      this.#finish(cookie, pending);
      return true;
    }
    if (all.readUInt32BE(0) !== CHUNK_MAGIC) throw refused('its answer is malformed');
    if (all.length < 20) return this.#keep(all);
    const [last, type, cookie, length] = [
      (all.readUInt16BE(4) & 1) === 1,
      all.readUInt16BE(6),
      all.readBigUInt64BE(8),
      all.readUInt32BE(16),
    ];
    const pending = this.#known(cookie);
    if (type === CHUNK.data) {
      if (all.length < 28) return this.#keep(all);
      const at = Number(all.readBigUInt64BE(20)) - pending.offset;
      const left = length - 8;
      if (!pending.into || at < 0 || left < 0 || at + left > pending.into.length)
        throw refused('it sends bytes that were not asked for');
      this.#data = { pending, at, left, last, cookie };
      this.#keep(all.subarray(28));
      return true;
    }
    if (length > MAX_SMALL_CHUNK_BYTES) throw refused('its answer is too long');
    if (all.length < 20 + length) return this.#keep(all);
    this.#small(type, all.subarray(20, 20 + length), pending);
    this.#keep(all.subarray(20 + length));
    if (last) this.#finish(cookie, pending);
    return true;
  }

  #small(type: number, data: Buffer, pending: Pending): void {
    if (type === CHUNK.hole) {
      const at = Number(data.readBigUInt64BE(0)) - pending.offset;
      const length = data.readUInt32BE(8);
      if (!pending.into || at < 0 || at + length > pending.into.length)
        throw refused('it names a hole that was not asked for');
      pending.into.fill(0, at, at + length);
    } else if (type === CHUNK.status) {
      let offset = pending.offset;
      for (let at = 4; at + 8 <= data.length; at += 8) {
        const length = data.readUInt32BE(at);
        pending.extents.push({ offset, length, flags: data.readUInt32BE(at + 4) });
        offset += length;
      }
    } else if (type === CHUNK.error || type === CHUNK.errorOffset) {
      pending.error = `${data.subarray(6, 6 + data.readUInt16BE(4)).toString('utf8')} (error ${data.readUInt32BE(0)})`;
    } else if (type !== CHUNK.none) throw refused(`it answers with chunks of type ${type}`);
  }

  #finish(cookie: bigint, pending: Pending): void {
    this.#pending.delete(cookie);
    pending.settle(pending.error === undefined ? undefined : refused(pending.error));
  }

  #known(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie);
    if (!pending) throw refused('it answers what was not asked');
    return pending;
  }

  #whole(): Buffer {
    const all = this.#rest.length === 1 && this.#rest[0] ? this.#rest[0] : Buffer.concat(this.#rest);
    this.#rest = [];
    this.#restBytes = 0;
    return all;
  }

  #keep(bytes: Buffer): false {
    if (bytes.length > 0) this.#rest = [bytes];
    this.#restBytes = bytes.length;
    return false;
  }

  #end(error: DwcpError): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#socket.destroy();
    this.#wanted?.reject(error);
    for (const pending of this.#pending.values()) pending.settle(error);
    this.#pending.clear();
  }
}

/** Stretches of an export that are holes or zeros, asked over a connection of its own. */
export async function zeroExtents(path: string, exportName: string): Promise<NbdExtent[]> {
  const client = await NbdClient.connect(path, exportName, 'base:allocation');
  try {
    return (await client.extents()).filter(({ flags }) => (flags & ALLOCATION_ZERO) !== 0);
  } finally {
    client.close();
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function request(type: number, cookie: bigint, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

function refused(why: string): DwcpError {
  return new DwcpError('IMAGE_UNREADABLE', `The NBD server of a disk: ${why}`, { side: 'source' });
}
