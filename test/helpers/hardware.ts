/** A machine of which nothing is known, for guests that have no QEMU. */
import type { GuestHardware } from '../../src/model/guest-hardware';

export const NO_HARDWARE: GuestHardware = {
  qemuVersion: '10.0',
  kvm: false,
  devices: [],
  parts: {},
  processors: [],
  ramBlocks: [],
  features: [],
  addressBits: 0,
};
