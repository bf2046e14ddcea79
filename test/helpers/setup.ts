/**
 * For every test file: limits per kind, and no process of ours left behind.
 */
import { endAll, survivors } from './children-check';

jest.setTimeout(120_000);

afterAll(async () => {
  await endAll();
  expect(survivors()).toEqual([]);
});
