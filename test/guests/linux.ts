/** How the table's small Linux keeps itself busy: little, so that many of them have their turn. */
export const LINUX = {
  ...{ memoryMiB: 160, diskMiB: 48, filesMiB: 8, randomMiB: 4 },
  ...{ dirtyKiBPerTick: 64, diskKiBPerSecond: 64 },
};
