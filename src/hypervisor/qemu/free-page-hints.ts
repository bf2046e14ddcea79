/**
 * Free-page hints of a balloon device (`virtio-balloon-pci,free-page-hint=on`, which takes an iothread): at the beginning of a migration
 * the guest tells QEMU which pages are free, and those do not travel. It takes the guest a moment, in which a QEMU that is read as fast as
 * it can be has sent them already; so it is given that moment. Seen on QEMU 10.0, hw/virtio/virtio-balloon.c. Without KVM a Linux that
 * clears pages as it takes them (init_on_alloc) has them in the dirty log again: they come in a later round, as zeros.
 */
import { hasCode } from '../../model/errors';
import { wait } from '../../system/wait';
import type { QmpClient } from './qmp-client';

const BALLOON = /^child<virtio-balloon/;
const LOOK_EVERY_MS = 100;
/** A guest that has said nothing by then has no driver for it, or nothing free. */
const FIRST_HINT_WITHIN_MS = 1_000;
const NEXT_HINT_WITHIN_MS = 500;
const ALL_WITHIN_MS = 3_000;
/** Less than this is what QEMU itself sends meanwhile. */
const HINTED_BYTES = 1024 * 1024;

export async function hintsFreePages(qmp: QmpClient): Promise<boolean> {
  for (const folder of ['/machine/peripheral', '/machine/peripheral-anon'])
    for (const { name, type } of await qmp.execute('qom-list', { path: folder })) {
      if (!BALLOON.test(type)) continue;
      const asked = { path: `${folder}/${name}`, property: 'free-page-hint' };
      const hints = await qmp.execute('qom-get', asked).catch((error: unknown) => {
        if (hasCode(error, 'QEMU_REFUSED')) return false;
        throw error;
      });
      if (hints === true) return true;
    }
  return false;
}

/** Until the guest has said what is free, or says nothing. Never throws: a migration that ends meanwhile is heard of elsewhere. */
export async function untilHinted(qmp: QmpClient): Promise<void> {
  const beganAt = performance.now();
  let [left, heardAt, within] = [Infinity, beganAt, FIRST_HINT_WITHIN_MS];
  while (performance.now() < Math.min(heardAt + within, beganAt + ALL_WITHIN_MS)) {
    await wait(LOOK_EVERY_MS);
    const info = await qmp.execute('query-migrate').catch(() => undefined);
    if (!info || (info.status !== 'active' && info.status !== 'setup')) return;
    const now = info.ram?.remaining ?? left;
    if (now < left - HINTED_BYTES && left !== Infinity) [heardAt, within] = [performance.now(), NEXT_HINT_WITHIN_MS];
    left = now;
  }
}
