/**
 * What every hypervisor driver promises; the pre- and postconditions stand on the interface. A driver hands over a
 * factory that makes a VM of its kind.
 */
import type { HypervisorDriver } from '../../src/hypervisor/contract';
import type { VmImage } from '../../src/model/image';
import { sha256 } from '../helpers/data';

export interface DriverUnderTest {
  readonly driver: HypervisorDriver;
  /** A stopped VM with a disk and a memory image. */
  makeVm(): Promise<readonly VmImage[]>;
  /** Makes the VM look as if it ran, in a way the driver can see; returns what undoes it. */
  makeRun(images: readonly VmImage[]): Promise<() => Promise<void>>;
}

const contentOf = (images: readonly VmImage[]): string[] => images.map(({ path }) => sha256(path));

export function hypervisorDriverSuite(name: string, create: () => DriverUnderTest): void {
  describe(`hypervisor driver contract: ${name}`, () => {
    const { driver, makeVm, makeRun } = create();

    it('inspects every image in the order given, with its true size, and changes nothing', async () => {
      const images = await makeVm();
      const first = await driver.inspect(images);
      expect(first.map((image) => image.imageId)).toEqual(images.map((image) => image.imageId));
      expect(first.every((image) => image.sizeBytes > 0)).toBe(true);
      expect(await driver.inspect(images)).toEqual(first);
    });

    it('names an image that cannot be read by its code', async () => {
      const images = await makeVm();
      const missing = images.map((image) => ({ ...image, path: `${image.path}.missing` }));
      await expect(driver.inspect(missing)).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    });

    it('holds a stopped VM, twice as well as once, and lets it go again as it was', async () => {
      const images = await makeVm();
      const before = contentOf(images);
      await driver.hold(images);
      await driver.hold(images);
      expect(contentOf(images)).toEqual(before);
      await driver.resume(images);
      await driver.resume(images);
      expect(contentOf(images)).toEqual(before);
      await driver.hold(images);
    });

    it('refuses to hold a VM that runs, and leaves it as it was', async () => {
      const images = await makeVm();
      const stop = await makeRun(images);
      await expect(driver.hold(images)).rejects.toMatchObject({ code: 'VM_RUNNING' });
      await stop();
      await driver.hold(images);
    });

    it('activates a VM whose images are in place, twice as well as once, and changes nothing of them', async () => {
      const images = await makeVm();
      const before = contentOf(images);
      await driver.activate(images);
      await driver.activate(images);
      expect(contentOf(images)).toEqual(before);
    });
  });
}
