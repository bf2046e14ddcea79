/** QEMU's migration stream: taken apart and built again it is the same pages; a bad one is a coded error, never more. */
import fc from 'fast-check';
import { PAGE_BYTES } from '../../src/hypervisor/qemu/migration-stream-format';
import { type MigrationStreamHandler, MigrationStreamReader } from '../../src/hypervisor/qemu/migration-stream-reader';
import { MigrationStreamWriter } from '../../src/hypervisor/qemu/migration-stream-writer';
import { DwcpError } from '../../src/model/errors';
import type { RamBlock } from '../../src/model/guest';

const SECTION_ID = 2;
const BLOCKS: readonly RamBlock[] = [
  { id: 'pc.ram', usedBytes: 64 * PAGE_BYTES },
  { id: '/rom@etc/acpi/tables', usedBytes: 8 * PAGE_BYTES },
  { id: 'vga.vram', usedBytes: 16 * PAGE_BYTES },
];

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

function u64(value: bigint): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(value);
  return out;
}

const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value, 'latin1')]);

/** Head, configuration with its capabilities, RAM's set-up: as QEMU 10 writes it. */
function setUp(
  blocks = BLOCKS,
  { section = 'ram', total = blocks.reduce((sum, block) => sum + BigInt(block.usedBytes), 0n) } = {},
): Buffer {
  return Buffer.concat([
    Buffer.from('QEVM'),
    u32(3),
    Buffer.from([7]),
    u32(11),
    Buffer.from('pc-q35-10.0'),
    Buffer.from([5]),
    text('configuration/capabilities'),
    u32(1),
    u32(1),
    text('x-ignore-shared'),
    Buffer.from([1]),
    u32(SECTION_ID),
    text(section),
    u32(0),
    u32(4),
    u64(total | 4n),
    ...blocks.flatMap((block) => [text(block.id), u64(BigInt(block.usedBytes))]),
    u64(0x10n),
    Buffer.from([0x7e]),
    u32(SECTION_ID),
  ]);
}

type Seen = readonly [kind: string, ...rest: unknown[]];

/** @param seen takes what is found, also before the stream turns out to be bad */
function read(stream: Buffer, cuts: readonly number[] = [], seen: Seen[] = []): Seen[] {
  let device = Buffer.alloc(0);
  const handler: MigrationStreamHandler = {
    setUp: (prefix, id, blocks) => seen.push(['setUp', prefix.length, id, blocks]),
    page: (block, offset, content) => seen.push(['page', block, offset, content.readUInt32LE(0), content.length]),
    filledPage: (block, offset, fill) => seen.push(['filled', block, offset, fill]),
    command: (bytes) => seen.push(['command', bytes.toString('hex')]),
    sectionEnded: (kind) => seen.push(['ended', kind]),
    deviceState: (bytes) => (device = Buffer.concat([device, bytes])),
  };
  const reader = new MigrationStreamReader(handler);
  const points = [0, ...[...cuts].sort((a, b) => a - b), stream.length];
  for (let piece = 1; piece < points.length; piece += 1) reader.feed(stream.subarray(points[piece - 1], points[piece]));
  if (device.length > 0) seen.push(['device', device.toString('latin1')]);
  return seen;
}

const record = fc.record({
  block: fc.constantFrom(...BLOCKS),
  page: fc.nat(7),
  content: fc.option(fc.nat(2 ** 31)),
  fill: fc.nat(255),
});

function write(
  sections: readonly (readonly { block: RamBlock; page: number; content: number | null; fill: number }[])[],
): { stream: Buffer; expected: Seen[] } {
  const pieces = [setUp()];
  const expected: Seen[] = [['setUp', pieces[0]!.length, SECTION_ID, BLOCKS]];
  const writer = new MigrationStreamWriter(SECTION_ID, (bytes) => pieces.push(bytes), 10_000);
  sections.forEach((records, index) => {
    const kind = index === sections.length - 1 ? 'end' : 'part';
    writer.beginSection(kind);
    for (const { block, page, content, fill } of records) {
      const offset = page * PAGE_BYTES;
      if (content === null) writer.filledPage(block.id, offset, fill);
      else writer.page(block.id, offset, Buffer.concat([u32(content).swap32(), Buffer.alloc(PAGE_BYTES - 4, fill)]));
      expected.push(
        content === null ? ['filled', block.id, offset, fill] : ['page', block.id, offset, content, PAGE_BYTES],
      );
    }
    writer.endSection();
    expected.push(['ended', kind]);
  });
  pieces.push(Buffer.from('\x04device state\x00', 'latin1'));
  expected.push(['device', '\x04device state\x00']);
  return { stream: Buffer.concat(pieces), expected };
}

test('what the writer builds the reader finds, in whatever pieces it arrives', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(record, { maxLength: 12 }), { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(60_000), { maxLength: 12 }),
      (sections, cuts) => {
        const { stream, expected } = write(sections);
        expect(
          read(
            stream,
            cuts.filter((cut) => cut < stream.length),
          ),
        ).toEqual(expected);
      },
    ),
    { numRuns: 150 },
  );
});

test('one byte at a time', () => {
  const { stream, expected } = write([
    [{ block: BLOCKS[0]!, page: 3, content: 5, fill: 1 }],
    [{ block: BLOCKS[2]!, page: 7, content: null, fill: 9 }],
  ]);
  expect(
    read(
      stream,
      Array.from({ length: stream.length - 1 }, (_, index) => index + 1),
    ),
  ).toEqual(expected);
});

test('a command between sections is passed on in its place', () => {
  const section = (kind: number): Buffer =>
    Buffer.concat([Buffer.from([kind]), u32(SECTION_ID), u64(0x10n), Buffer.from([0x7e]), u32(SECTION_ID)]);
  const command = Buffer.from('08000c0003aabbcc', 'hex');
  const stream = Buffer.concat([setUp(), section(2), command, section(3)]);
  expect(
    read(
      stream,
      Array.from({ length: stream.length - 1 }, (_, index) => index + 1),
    ).slice(1),
  ).toEqual([
    ['ended', 'part'],
    ['command', '08000c0003aabbcc'],
    ['ended', 'end'],
  ]);
});

test('a page above 4 GiB keeps its place', () => {
  const big = { id: 'pc.ram', usedBytes: 6 * 2 ** 30 };
  const pieces = [setUp([big])];
  const writer = new MigrationStreamWriter(SECTION_ID, (bytes) => pieces.push(bytes));
  writer.beginSection('end');
  writer.filledPage('pc.ram', 5 * 2 ** 30 + PAGE_BYTES, 0);
  writer.endSection();
  expect(read(Buffer.concat(pieces))).toContainEqual(['filled', 'pc.ram', 5 * 2 ** 30 + PAGE_BYTES, 0]);
});

/** Reads hostile bytes: they are refused with the code, or understood; and no page is named that its set-up has no place for. */
function expectCodedOrWithin(stream: Buffer): void {
  const seen: Seen[] = [];
  expect(['STREAM_NOT_UNDERSTOOD', 'nothing thrown']).toContain(codeOf(() => read(stream, [], seen)));
  const [head, ...rest] = seen;
  expect(head?.[0] ?? 'setUp').toBe('setUp');
  const sizes = new Map(((head?.[3] ?? []) as readonly RamBlock[]).map(({ id, usedBytes }) => [id, usedBytes]));
  for (const [kind, id, offset] of rest as (readonly [string, string, number])[]) {
    if (kind !== 'page' && kind !== 'filled') continue;
    expect(offset % PAGE_BYTES).toBe(0);
    expect(offset + PAGE_BYTES).toBeLessThanOrEqual(sizes.get(id) ?? 0);
  }
}

function codeOf(act: () => unknown): string {
  try {
    act();
    return 'nothing thrown';
  } catch (error) {
    return error instanceof DwcpError ? error.code : String(error);
  }
}

describe('hostile streams', () => {
  const { stream } = write([
    [
      { block: BLOCKS[0]!, page: 3, content: 5, fill: 1 },
      { block: BLOCKS[0]!, page: 4, content: 6, fill: 1 },
    ],
    [{ block: BLOCKS[2]!, page: 7, content: null, fill: 9 }],
  ]);

  test('bit flips', () => {
    fc.assert(
      fc.property(fc.nat(8 * stream.length - 1), (bit) => {
        const bad = Buffer.from(stream);
        bad[bit >> 3]! ^= 1 << (bit & 7);
        expectCodedOrWithin(bad);
      }),
      { numRuns: 2000 },
    );
  });

  test('noise, and noise behind a good set-up', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (noise) => {
        expectCodedOrWithin(Buffer.from(noise));
        expectCodedOrWithin(Buffer.concat([setUp(), Buffer.from(noise)]));
      }),
      { numRuns: 500 },
    );
  });

  test.each<[string, () => Buffer]>([
    ['another version', () => Buffer.concat([Buffer.from('QEVM'), u32(4), Buffer.alloc(20)])],
    ['another section that goes on while the guest runs', () => setUp(BLOCKS, { section: 'dirty-bitmap' })],
    [
      'a page outside its block',
      () =>
        Buffer.concat([
          setUp(),
          Buffer.from([2]),
          u32(SECTION_ID),
          u64(BigInt(64 * PAGE_BYTES) | 2n),
          text('pc.ram'),
          Buffer.from([0]),
        ]),
    ],
    [
      'an unknown block',
      () => Buffer.concat([setUp(), Buffer.from([2]), u32(SECTION_ID), u64(2n), text('pc.rim'), Buffer.from([0])]),
    ],
    [
      'CONTINUE before any block was named',
      () => Buffer.concat([setUp(), Buffer.from([2]), u32(SECTION_ID), u64(0x22n), Buffer.from([0])]),
    ],
    ['a multifd flush', () => Buffer.concat([setUp(), Buffer.from([2]), u32(SECTION_ID), u64(0x200n)])],
    ['blocks that exceed the total', () => setUp(BLOCKS, { total: 4096n })],
    ['the same block twice', () => setUp([BLOCKS[0]!, BLOCKS[0]!])],
    ['no footer', () => Buffer.concat([setUp(), Buffer.from([2]), u32(SECTION_ID), u64(0x10n), Buffer.from([1])])],
  ])('%s is refused', (_, make) => {
    expect(codeOf(() => read(make()))).toBe('STREAM_NOT_UNDERSTOOD');
  });

  test('a set-up that never ends is refused at its bound', () => {
    const endless = Buffer.concat([
      setUp([{ id: 'a', usedBytes: 2 ** 40 }]).subarray(0, -30),
      Buffer.alloc(2 ** 21, 1),
    ]);
    expect(codeOf(() => read(endless))).toBe('STREAM_NOT_UNDERSTOOD');
  });
});
