/**
 * The source's end of the standard transfer's connections: one question at a time, events as they come, and tunnels beside
 * it for what QEMU itself says. Independent of the session and its streams. The other end: standard-receiver.ts.
 */
import { z } from 'zod';
import { DwcpError, errorReportSchema, fromReport } from '../../model/errors';
import type { Connection, Received } from '../../transport/connection';
import { buildFrame, type FrameType } from '../../transport/frame';
import { readMeta } from '../../transport/hello';
import { Tunnel } from '../../transport/tunnel';
import type { SourceMigration } from './source-migration';

const FRAMES: ReadonlySet<FrameType> = new Set(['response', 'event']);

const responseSchema = z.union([
  z.looseObject({ ok: z.literal(true), offset: z.int().min(0).optional() }),
  z.object({ ok: z.literal(false), error: errorReportSchema }),
]);
const eventSchema = z.union([
  z.object({ event: z.literal('written'), offset: z.int().min(0) }),
  z.object({ event: z.literal('failed'), error: errorReportSchema }),
]);

export class StandardChannel {
  readonly connection: Connection;
  readonly #written: (offset: number) => void;
  readonly #ended: (error: DwcpError) => void;
  #answer:
    | { readonly resolve: (body: z.infer<typeof responseSchema>) => void; readonly reject: (error: DwcpError) => void }
    | undefined;
  #failed: DwcpError | undefined;

  /** @param ended called once with what ended it @param written how far the destination has written */
  static async open(
    migration: SourceMigration,
    ended: (error: DwcpError) => void,
    written: (offset: number) => void = () => undefined,
  ): Promise<StandardChannel> {
    return new StandardChannel(await dial(migration, 0), ended, written);
  }

  private constructor(connection: Connection, ended: (error: DwcpError) => void, written: (offset: number) => void) {
    this.connection = connection;
    this.#ended = ended;
    this.#written = written;
    connection.use(
      FRAMES,
      (received) => this.#receive(received),
      (error) => this.#fail(error),
    );
  }

  get failed(): DwcpError | undefined {
    return this.#failed;
  }

  async ask(body: Record<string, unknown>): Promise<{ offset?: number | undefined }> {
    if (this.#failed) throw this.#failed;
    const answered = new Promise<z.infer<typeof responseSchema>>((resolve, reject) => {
      this.#answer = { resolve, reject };
    });
    void this.connection.write(buildFrame('request', 1, Buffer.from(JSON.stringify(body))));
    const answer = await answered;
    if (!answer.ok) throw fromReport({ side: 'destination', ...answer.error });
    return answer;
  }

  destroy(error: DwcpError): void {
    this.connection.destroy(error);
  }

  #receive({ frame }: Received): void {
    if (frame.type === 'response') {
      this.#answer?.resolve(readMeta(responseSchema, frame));
      return;
    }
    const event = readMeta(eventSchema, frame);
    if (event.event === 'failed') this.connection.destroy(fromReport({ side: 'destination', ...event.error }));
    else this.#written(event.offset);
  }

  #fail(error: DwcpError): void {
    this.#failed ??=
      error.code === 'PEER_UNREACHABLE'
        ? new DwcpError('SESSION_LOST', `The standard transfer was cut off: ${error.message}`, { cause: error })
        : error;
    this.#answer?.reject(this.#failed);
    this.#ended(this.#failed);
  }
}

/** A tunnel beside an open channel. @param stream 1 for memory, 2 and up for disks */
export async function openTunnel(
  migration: SourceMigration,
  stream: number,
  ended: (error: DwcpError) => void,
): Promise<Tunnel> {
  return new Tunnel(await dial(migration, stream), ended, migration.bucket);
}

function dial({ context, destination, migrationId }: SourceMigration, stream: number): Promise<Connection> {
  const hello = {
    role: 'standard' as const,
    sessionId: migrationId,
    epoch: Date.now(),
    stream,
    sourceHost: context.hostId,
    grant: destination.grant,
  };
  return context.peers.connect(destination, hello);
}
