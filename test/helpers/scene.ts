/**
 * A guest on a lab's host a, watched from outside, about to be moved to b: what the crash matrix and the stories of the
 * hand-over play on. It says how such a move ended, and checks what has to hold however it ended.
 */
import { execFileSync } from 'node:child_process';
import type { Outcome } from './cells';
import { killGuests, lookAt, startGuestOn } from './guest-lab';
import { GuestWatch } from './guest-watch';
import { MovingVm, type Place, type Side } from './moving-vm';
import { type CountingGuest, expectOnePass } from './qemu';
import { after, until } from './waiting';

export class Scene extends MovingVm {
  readonly watch: GuestWatch;
  readonly guest: CountingGuest;
  #countBefore = 0;

  static async at(place: Place, vmId: string, guest: CountingGuest): Promise<Scene> {
    const scene = new Scene(place, vmId, guest);
    await startGuestOn(scene.lab, vmId, guest, false);
    // A VM has been on its host's disk for longer than a test.
    if (place.disks.source) execFileSync('sync', ['-f', place.disks.source.folder]);
    await until(
      20_000,
      'the guest counts',
      async () => (scene.#countBefore = await scene.watch.countAt('source').catch(() => 0)) > 1,
    );
    return scene;
  }

  private constructor(place: Place, vmId: string, guest: CountingGuest) {
    super(place, vmId);
    this.guest = guest;
    this.watch = new GuestWatch(this);
  }

  /**
   * Where the guest is, once all is settled. Whatever happened: never two ran, what runs is of one moment and not older than its
   * last pause, and one host alone calls the VM its own.
   */
  async outcome(): Promise<Outcome> {
    await after(300);
    this.assertSafe();
    const here = await this.home();
    const running = this.watch.running;
    if (running.length === 0) return this.#outcomeStill(here);
    expect(running).toEqual([here]);
    await this.expectRight(here);
    return here === 'source' ? 'stayed' : 'moved';
  }

  /** What is there of the guest is right, memory and disk. The watch ends. */
  async expectRight(side: Side): Promise<void> {
    this.watch.stop();
    await after(100);
    const { counts, onDisk } = await lookAt(this.hostOf(side), this.vmId, this.guest);
    const first = counts[0]!;
    this.note(
      `${side}: counted to ${first}, ${onDisk ?? '-'} on disk; ${this.#countBefore} before, ${this.watch.countAtPause} at the last pause`,
    );
    expectOnePass(counts);
    expect(first).toBeGreaterThanOrEqual(Math.max(this.#countBefore, this.watch.countAtPause));
    if (onDisk !== undefined) expect([first, first - 1]).toContain(onDisk);
  }

  protected assertSafe(): void {
    expect(this.watch.overlaps).toEqual([]);
  }

  protected override endGuest(): void {
    this.watch.stop();
    killGuests();
  }

  async #outcomeStill(here: Side): Promise<Outcome> {
    const status = await this.#statusAt(here);
    if (status === undefined) return 'lost';
    if (status !== 'paused') throw new Error(`nobody runs the guest: at the ${here} it is in state ${status}`);
    await this.watch.monitor(here).execute('cont');
    await this.expectRight(here);
    return 'held';
  }

  /** QEMU's word for it; undefined where its QEMU is gone. */
  async #statusAt(side: Side): Promise<string | undefined> {
    try {
      return (await this.watch.monitor(side).execute('query-status')).status;
    } catch {
      return undefined;
    }
  }
}
