/** The documents made from the source are the ones that are committed. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Ajv from 'ajv/dist/2020';
import { generatedDocuments } from '../../tools/generated-documents';

const root = join(__dirname, '..', '..', '..');

test.each([...generatedDocuments()])(
  '%s says what the source says (else: npm run build && npm run docs)',
  (path, text) => {
    expect(readFileSync(join(root, path), 'utf8')).toBe(text);
  },
);

describe('the schemas of the contract', () => {
  const compile = (name: string): ReturnType<Ajv['compile']> =>
    new Ajv({ strict: false }).compile(
      JSON.parse(readFileSync(join(root, 'contract', 'schemas', `${name}.json`), 'utf8')) as object,
    );

  test('take the request of the Go client and refuse unknown options', () => {
    const request = compile('migration-request');
    const golden = JSON.parse(readFileSync(join(root, 'contract', 'go', 'testdata', 'request.json'), 'utf8')) as object;
    expect(request(golden)).toBe(true);
    expect(request({ ...golden, options: { maxStream: 4 } })).toBe(false);
    expect(request({ ...golden, options: { maxStreams: 400 } })).toBe(false);
  });

  test('describe the golden result that the Go client reads', () => {
    const golden = JSON.parse(readFileSync(join(root, 'contract', 'go', 'testdata', 'result.json'), 'utf8')) as object;
    expect(compile('migration-result')(golden)).toBe(true);
    expect(compile('migration-result')({ ...golden, outcome: 'perhaps' })).toBe(false);
  });
});
