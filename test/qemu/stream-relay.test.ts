/**
 * A guest moves between two real QEMUs through the stream's reader and writer: every page taken out and put in again, in
 * another order. The guest goes on, and no page of it is older than its pause.
 */
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { MigrationStreamReader } from '../../src/hypervisor/qemu/migration-stream-reader';
import { MigrationStreamWriter } from '../../src/hypervisor/qemu/migration-stream-writer';
import { temporaryFolder } from '../helpers/data';
import { describeWhere } from '../helpers/needs';
import {
  buildCountingGuest,
  countsOf,
  expectOnePass,
  needsAssembler,
  needsQemu,
  type RunningGuest,
  startGuest,
} from '../helpers/qemu';

const PAGES = 2048;
const MEMORY_MIB = 64;

interface Relayed {
  readonly sections: string[];
  pages: number;
}

/** Takes a stream at one socket and gives it, each section's pages in reverse order, to another. */
async function relay(from: string, to: string): Promise<{ listening: Promise<void>; done: Promise<Relayed> }> {
  const relayed: Relayed = { sections: [], pages: 0 };
  let resolveDone: (value: Relayed) => void = () => undefined;
  let rejectDone: (error: unknown) => void = () => undefined;
  const done = new Promise<Relayed>((resolve, reject) => ([resolveDone, rejectDone] = [resolve, reject]));
  const server = createServer((source: Socket) => {
    const destination = connect(to);
    destination.on('error', rejectDone).resume();
    let writer: MigrationStreamWriter | undefined;
    let held: (() => void)[] = [];
    const reader = new MigrationStreamReader({
      setUp: (prefix, sectionId) => {
        destination.write(Buffer.from(prefix));
        writer = new MigrationStreamWriter(sectionId, (bytes) => destination.write(bytes));
      },
      page: (block, offset, content) => {
        const copy = Buffer.from(content);
        relayed.pages += 1;
        held.push(() => writer?.page(block, offset, copy));
      },
      filledPage: (block, offset, fill) => held.push(() => writer?.filledPage(block, offset, fill)),
      sectionEnded: (kind) => {
        writer?.beginSection(kind);
        for (const put of held.reverse()) put();
        writer?.endSection();
        held = [];
        relayed.sections.push(kind);
      },
      command: (bytes) => destination.write(Buffer.from(bytes)),
      deviceState: (bytes) => destination.write(Buffer.from(bytes)),
    });
    source.on('data', (chunk: Buffer) => {
      try {
        reader.feed(chunk);
      } catch (error) {
        rejectDone(error);
      }
    });
    source.on('end', () => {
      destination.end();
      server.close();
      resolveDone(relayed);
    });
  });
  const listening = new Promise<void>((resolve) => server.listen(from, resolve));
  await listening;
  return { listening, done };
}

async function moveThroughRelay(source: RunningGuest, destination: RunningGuest, incoming: string): Promise<Relayed> {
  const path = join(temporaryFolder(), 'outgoing');
  const { done } = await relay(path, incoming);
  const completed = source.qmp.event(
    'completed',
    ({ name, data }) => name === 'MIGRATION' && data.status === 'completed',
    60_000,
  );
  const arrived = destination.qmp.event(
    'completed',
    ({ name, data }) => name === 'MIGRATION' && data.status === 'completed',
    60_000,
  );
  for (const { qmp } of [source, destination])
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 1e9, 'downtime-limit': 300 });
  await source.qmp.execute('migrate', { uri: `unix:${path}` });
  await completed;
  const relayed = await done;
  await arrived;
  return relayed;
}

describeWhere([needsQemu(), needsAssembler()])('a migration stream through reader and writer', () => {
  test('the guest goes on at the destination with every page as it was', async () => {
    const guest = buildCountingGuest(PAGES, { idleTurns: 300 });
    const incoming = join(temporaryFolder(), 'incoming');
    const source = await startGuest(guest, MEMORY_MIB);
    const destination = await startGuest(guest, MEMORY_MIB, `unix:${incoming}`);
    while ((await countsOf(source, 1))[0]! < 3) await new Promise((resolve) => setTimeout(resolve, 50));

    const relayed = await moveThroughRelay(source, destination, incoming);
    expect(relayed.sections.at(-1)).toBe('end');
    expect(relayed.pages).toBeGreaterThan(PAGES);
    expect(await destination.qmp.execute('query-status')).toMatchObject({ running: false });
    expect(await source.qmp.execute('query-status')).toMatchObject({ running: false });
    const [before, after] = [await countsOf(source, PAGES), await countsOf(destination, PAGES)];
    expectOnePass(after);
    expect(after).toEqual(before);

    await destination.qmp.execute('cont');
    const count = after[0]!;
    while ((await countsOf(destination, 1))[0]! < count + 2) await new Promise((resolve) => setTimeout(resolve, 50));
  });
});
