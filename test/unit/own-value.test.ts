/** Names from outside find the rows of a table and nothing else that an object answers to. */
import { toDwcpError } from '../../src/model/errors';
import { parseOption } from '../../src/model/option-text';
import { compileMigrationOptions, PROCESS_OPTIONS } from '../../src/model/options';
import { ownValue } from '../../src/model/own-value';
import { parseDurationMs, parseRateBytesPerSecond, parseSizeBytes } from '../../src/model/units';

const INHERITED = ['constructor', 'toString', 'valueOf', 'hasOwnProperty', '__proto__', '__defineGetter__'];

test.each(INHERITED)('%s is no row of any table', (name) => {
  expect(ownValue({ here: 1 }, name)).toBeUndefined();
  expect(toDwcpError({ code: name, message: 'x' }, 'IMAGE_UNREADABLE').code).toBe('IMAGE_UNREADABLE');
  expect(() => parseOption('debug', PROCESS_OPTIONS.debug, name)).toThrow(RangeError);
  expect([parseSizeBytes(`1${name}`), parseDurationMs(`1 ${name}`)]).toEqual([undefined, undefined]);
  expect(parseRateBytesPerSecond(`1/${name}`)).toBeUndefined();
  expect(Object.keys(compileMigrationOptions({}))).not.toContain(name);
});

test('a row is found', () => {
  expect([ownValue({ here: 1 }, 'here'), parseSizeBytes('1KiB'), parseDurationMs('2s')]).toEqual([1, 1024, 2000]);
});
