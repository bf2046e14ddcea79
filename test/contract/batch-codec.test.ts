/** The batch encoder and decoder under the encoder contract. */
import { BatchDecoder } from '../../src/encoder/batch-decoder';
import { BatchEncoder, encodedBound } from '../../src/encoder/batch-encoder';
import { batchMetaBytes, readBatchHead } from '../../src/encoder/batch-format';
import { blockHash } from '../../src/encoder/hash';
import { randomBlock, textBlock } from '../helpers/data';
import { encoderSuite } from './encoder.suite';

it('encodes blocks that lie in its own output, wherever they lie there', () => {
  const encoder = new BatchEncoder();
  for (const level of [1, 9]) {
    for (const make of [randomBlock, textBlock]) {
      for (let shift = 0; shift < 3; shift += 1) {
        const out = Buffer.alloc(encodedBound(4));
        const start = batchMetaBytes(4) + shift * 65_536;
        const blocks = [0, 1].map((index) => {
          const content = make(5, index);
          const bytes = out.subarray(start + index * 65_536, start + (index + 1) * 65_536);
          content.copy(bytes);
          return { block: index, bytes, hash: blockHash(content), content };
        });
        const { metaBytes, payloadBytes } = encoder.encode(
          1,
          blocks,
          { compress: true, level, delta: true, deltaThreshold: 0.7 },
          out,
        );
        const written = new Map<number, Buffer>();
        new BatchDecoder().decode(
          readBatchHead(out.subarray(0, metaBytes)),
          out.subarray(metaBytes, metaBytes + payloadBytes),
          {
            sizeBytes: 4 * 65_536,
            hashOf: () => Buffer.alloc(16),
            read: () => undefined,
            readReferences: () => false,
            dictionaryOf: () => undefined,
          },
          ({ block, bytes }) => written.set(block, Buffer.from(bytes!)),
          (block) => expect(block).toBe('accepted'),
        );
        for (const { block, content } of blocks) expect(written.get(block)?.equals(content)).toBe(true);
      }
    }
  }
});

encoderSuite('BatchEncoder', () => {
  const encoder = new BatchEncoder();
  const decoder = new BatchDecoder();
  return {
    encode: (blocks, settings) => {
      const out = Buffer.alloc(encodedBound(blocks.length));
      const { metaBytes, payloadBytes } = encoder.encode(7, blocks, settings, out);
      return { meta: out.subarray(0, metaBytes), payload: out.subarray(metaBytes, metaBytes + payloadBytes) };
    },
    decode: (meta, payload, image) => {
      const written = new Map<number, Buffer>();
      const refused: number[] = [];
      const lengthOf = (block: number): number => Math.min(65_536, image.sizeBytes - block * 65_536);
      const held = (block: number): Buffer => image.blocks.get(block) ?? Buffer.alloc(lengthOf(block));
      decoder.decode(
        readBatchHead(meta),
        payload,
        {
          sizeBytes: image.sizeBytes,
          hashOf: (block) => blockHash(held(block)),
          read: (block, out) => held(block).copy(out),
          readReferences: () => false,
          dictionaryOf: () => undefined,
        },
        ({ block, bytes }) => written.set(block, bytes ? Buffer.from(bytes) : Buffer.alloc(lengthOf(block))),
        (block) => refused.push(block),
      );
      return { written, refused };
    },
  };
});
