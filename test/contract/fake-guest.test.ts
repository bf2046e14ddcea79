/** The fake guest under the contract of running guests: what is tested with it is tested with what a driver promises. */
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../src/model/image';
import { randomBlock, temporaryFolder } from '../helpers/data';
import { FakeGuest, FakeGuestPort } from '../helpers/fake-guest';
import { FakeReceiver } from '../helpers/fake-receiver';
import { type GuestUnderTest, runningGuestSuite, type Side } from './running-guest.suite';

const RAM = [
  { id: 'ram', usedBytes: 24 * BLOCK_SIZE_BYTES },
  { id: 'rom', usedBytes: 2 * PAGE_SIZE_BYTES },
];
const WRITES = { first: 40, count: 100 };
const DISK_BYTES = 20 * BLOCK_SIZE_BYTES;
const WRITES_DISK_AT = 3 * BLOCK_SIZE_BYTES + 77;

runningGuestSuite('fake', () => {
  const folder = temporaryFolder();
  const path = join(folder, 'disk.img');
  writeFileSync(path, randomBlock(1, 1, 6 * BLOCK_SIZE_BYTES));
  truncateSync(path, DISK_BYTES);
  const source = new FakeGuest(RAM, path);
  for (let page = 0; page < 200; page += 3) source.write(page, randomBlock(2, page, PAGE_SIZE_BYTES));
  let receiver: FakeReceiver | undefined;
  let count = 0;
  const guestOf = (side: Side): FakeGuest | undefined => (side === 'source' ? source : receiver?.guest);
  const guest: GuestUnderTest = {
    ramBlocks: RAM,
    disk: { imageId: 'vda', kind: 'disk', path, sizeBytes: DISK_BYTES },
    memoryPath: join(folder, 'memory.img'),
    writes: WRITES,
    writesDiskAt: WRITES_DISK_AT,
    connect: (mayRun = () => true) =>
      Promise.resolve(
        new FakeGuestPort(source, async (letRunOn) => {
          if (mayRun()) await letRunOn();
          return mayRun();
        }),
      ),
    receiver: () => (receiver = new FakeReceiver(RAM, path)),
    isRunning: (side) => Promise.resolve(guestOf(side)?.state === 'running'),
    written: (side) => {
      count += 1;
      for (let page = WRITES.first; page < WRITES.first + WRITES.count; page += 1)
        guestOf(side)!.write(page, randomBlock(3 + count, page, PAGE_SIZE_BYTES));
      guestOf(side)!.writeDisk(WRITES_DISK_AT, Buffer.from(`count ${count}`));
      return Promise.resolve();
    },
    memoryOf: (side) => {
      const start = WRITES.first * PAGE_SIZE_BYTES;
      return Promise.resolve(Buffer.from(guestOf(side)!.ram.subarray(start, start + WRITES.count * PAGE_SIZE_BYTES)));
    },
    writeLimit: () => Promise.resolve(source.writesLimitedTo),
    stop: () => Promise.resolve().then(() => source.operatorStops()),
    kill: () => Promise.resolve().then(() => source.end()),
  };
  return Promise.resolve(guest);
});
