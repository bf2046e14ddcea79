/**
 * SIGKILL for every process in turn, at three points of a transfer each: the VM arrives, verified, and what is sent again
 * is bounded by what was not durable.
 */
import { sharedLab } from '../helpers/lab';

const SIZE = 24 * 1024 * 1024;
/** About eight seconds for what of the image has to travel. */
const LIMIT = 1.2e6;

const shared = sharedLab({ own: true });

describe.each(['source agent', 'destination agent', 'control worker', 'Temporal server'] as const)(
  'SIGKILL of the %s',
  (victim) => {
    it.each([0.1, 0.45, 0.8])('at %d of the way: arrives whole, once, and nothing is left lying', async (share) => {
      const lab = await shared();
      const vmId = `vm-${victim.replaceAll(' ', '-')}-${100 * share}`;
      const { hashes } = await lab.defineVm(vmId, SIZE);
      const id = await lab.migrate(vmId, { bandwidthLimit: LIMIT });
      await lab.untilShare(id, share);
      await lab.killAndRestart(victim);
      const { state, result } = await lab.until(id, 'the end', ({ state: now }) => now !== 'running', 110_000);
      expect(state).toBe('completed');
      expect(lab.hashesOnB(vmId)).toEqual(hashes);
      const disk = result!.images.find((image) => image.imageId === 'vda')!;
      // Two thirds of the image have content, half of that does not compress. What a kill may cost is what was on the way or
      // not synced yet: a window and a commit interval of the limited rate,.
      expect(disk.linkBytes).toBeLessThan(SIZE * 0.36 + 2 * LIMIT + 8 * 262_144);
      await lab.untilClean();
    });
  },
);
