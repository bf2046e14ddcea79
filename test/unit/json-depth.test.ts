import fc from 'fast-check';
import { isDeep } from '../../src/model/json-depth';

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

test('the depth of any JSON is what its value has, brackets and quotes in texts aside', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6, stringUnit: fc.constantFrom('[', '{', '"', '\\', ']', 'a') }), (value) => {
      const depth = depthOf(value);
      expect(isDeep(JSON.stringify(value), depth)).toBe(false);
      if (depth > 0) expect(isDeep(JSON.stringify(value), depth - 1)).toBe(true);
    }),
  );
});

test('ten thousand brackets are deep, and cost no recursion', () => {
  expect(isDeep('['.repeat(10_000), 32)).toBe(true);
});
