/**
 * The quickest of the table of guests (test/guests/table.ts), each there and back between two hosts of their own files, networks and ports,
 * or refused with the thing named and nothing sent. All of them: `npm run bench -- guests`.
 */
import { SHAPES } from '../guests/table';
import { TwoHosts } from '../guests/two-hosts';
import { play } from '../guests/walk';
import { endBehindAll } from '../helpers/children-check';
import { describeWhere, needsRoot } from '../helpers/needs';
import { needsAssembler, needsQemu } from '../helpers/qemu';

const QUICK = SHAPES.filter(({ quick }) => quick);
const nothing = (): void => undefined;

describeWhere([needsRoot(), needsQemu(), needsAssembler()])('a guest of the table', () => {
  let hosts: Promise<TwoHosts> | undefined;
  endBehindAll(async () => (await hosts)?.stop());

  it.each(QUICK.map((shape) => [shape.name, shape] as const))(
    '%s',
    async (_, shape) => {
      hosts ??= TwoHosts.start(nothing);
      const { faults, outcome } = await play(await hosts, shape, nothing);
      expect({ outcome, faults }).toEqual({ outcome, faults: [] });
    },
    240_000,
  );

  it('is one of a table in which no two have one name', () => {
    expect(new Set(SHAPES.map(({ name }) => name)).size).toBe(SHAPES.length);
  });
});
