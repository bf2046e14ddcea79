/**
 * About a minute of `npm run bench -- fuzz`: as many inputs as DWCP_FUZZ_INPUTS says, of everything that another host can send, made wrong.
 * None crashes the process, hangs it, has it take memory above the bound, or is refused without a code; and honest sessions among them get
 * as far as each step that is played.
 */
import { RSS_BOUND, runFuzz } from '../../bench/fuzz-run';

const INPUTS = Number(process.env.DWCP_FUZZ_INPUTS ?? 100_000);
const SEED = Number(process.env.DWCP_FUZZ_SEED ?? 1);

test('whatever another host sends is accepted, or refused with a code', async () => {
  const { found, inputs, peakRssBytes, counts, reached } = await runFuzz({ seed: SEED, inputs: INPUTS });
  expect(
    found.map(
      ({ target, index, text }) => `${text}   (npm run bench -- fuzz --seed ${SEED} --only ${target}:${index})`,
    ),
  ).toEqual([]);
  expect(inputs).toBe(INPUTS);
  expect(peakRssBytes).toBeLessThan(RSS_BOUND);
  for (const [name, count] of Object.entries(counts)) expect([name, count.inputs > 0]).toEqual([name, true]);
  // Of the steps that an honest session has, those that a hundred sessions reach whatever the seed.
  for (const method of [
    'prepare',
    'open_image',
    'manifest',
    'page_hashes',
    'bases',
    'references',
    'dictionary',
    'train',
  ])
    expect([method, (reached[method] ?? 0) > 0]).toEqual([method, true]);
}, 1_800_000);
