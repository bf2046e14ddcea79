/**
 * The hand-over's model, searched: in every configuration of IN_CI nothing is violated and everything comes to an end; and the
 * search finds what a rule that is left out does, and what one wrong thing in the tables does.
 */
import { type Checked, check } from './check';
import { IN_CI } from './configurations';
import type { Configuration, Rule } from './hand-over-settings';
import { MUTANTS } from './table-mutants';

function expectNothingFound({ complete, findings }: Checked): void {
  expect(findings.map(({ what, states, story }) => `${what} (${states} states):\n${story.join('\n')}`)).toEqual([]);
  expect(complete).toBe(true);
}

const whats = ({ findings }: Checked): string[] => findings.map(({ what }) => what);

describe('whatever dies, is cut off, terminated or reset', () => {
  it.each(Object.entries(IN_CI))('%s: one owner, one that runs, and all comes to an end', (name, configuration) => {
    const checked = check(configuration);
    process.stderr.write(`${name}: ${checked.states} states, ${checked.transitions} transitions\n`);
    expectNothingFound(checked);
  });
});

describe('a rule left out is missed', () => {
  const { crash, terminate, resetHost, disk, override } = IN_CI;
  const without = (configuration: Configuration, ...rules: readonly Rule[]): Checked =>
    check({ ...configuration, without: new Set(rules) }, { untilViolated: true });

  it.each([
    ['only the last line lets run on', terminate, 'the source’s guest ran on behind the point of no return'],
    ['closed to data', override, 'nothing fair leads to an end, nor to its operator'],
    ['memory compared', crash, 'a guest runs with memory that is not its own'],
    ['record first', override, 'something is left lying for ever'],
    ['roll back again', disk, 'nothing fair leads to an end, nor to its operator'],
  ] as const)('%s', (rule, configuration, what) => {
    expect(whats(without(configuration, rule))).toContain(what);
  });

  it('one step at a time, and only what stands still: each is a wall behind the other', () => {
    expect(whats(without(override, 'one step at a time', 'only what stands still'))).toContain('two run');
    expectNothingFound(without(override, 'one step at a time'));
    expectNothingFound(without(resetHost, 'only what stands still'));
  });
});

describe('one wrong thing in the tables is found', () => {
  it.each(MUTANTS.map(({ wrong, ...mutant }) => [wrong, mutant] as const))('%s', (_, { tables, finds }) => {
    expect(whats(check({ ...finds, tables }, { untilViolated: true }))).not.toEqual([]);
  });
});
