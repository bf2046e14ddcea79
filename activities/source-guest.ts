/**
 * Activities of the source's agent for a guest that is moved while it runs: its rounds, and its switchover, each in one
 * activity, so that no step of Temporal lies between the guest's pause and its run on the other side.
 */
import { activityInfo } from '@temporalio/activity';
import { z } from 'zod';
import type { GuestPort } from '../src/hypervisor/contract';
import type { ActivityInput } from '../src/model/activity-inputs';
import type { ActivityResult } from '../src/model/activity-results';
import { DwcpError, hasCode, toDwcpError } from '../src/model/errors';
import type { GuestDefinition } from '../src/model/guest';
import type { HandOver } from '../src/model/hand-over';
import { type ImageProgress, imageProgressSchema } from '../src/model/migration';
import { dictionaryKeyOf } from '../src/store/dictionaries';
import { GuestHeadStart } from '../src/sync/guest/guest-head-start';
import { type GuestMove, reportOf } from '../src/sync/guest/guest-move';
import { IS_GONE } from '../src/sync/guest/guest-pause';
import { LiveMigration } from '../src/sync/guest/live-migration';
import { rememberMove } from '../src/sync/guest/remember-move';
import { WholeGuestMove } from '../src/sync/guest/standard-guest-move';
import type { TakenOver } from '../src/sync/protocol';
import type { SourceMigration } from '../src/sync/source/source-migration';
import { behindBorder } from './border';
import { lastReport, withHeartbeat } from './heartbeat';
import type { HandOverInput, SourceDependencies } from './source-inputs';
import { SourceVms } from './source-vm';

export interface GuestDependencies extends SourceDependencies {
  /** The source's half of a hand-over that is behind the point of no return. */
  readonly release: (input: HandOverInput, generation: number) => Promise<void>;
  /** The guest's QEMU, in the hands of one migration. */
  readonly connect: (migrationId: string, vmId: string, definition: GuestDefinition) => Promise<GuestPort>;
}

type RoundsInput = ActivityInput<'guestRounds'>;
type Dwcp = NonNullable<RoundsInput['dwcp']>;

type MovedGuest = ActivityResult<'guestSwitchover'>;

type Handed = Pick<HandOver, 'roots' | 'live'>;

const reportSchema = z.object({ v: z.literal(1), images: z.array(imageProgressSchema) });

export function createGuestActivities({ connect, release, report, observe, ...parts }: GuestDependencies) {
  const { hub, ownership, journal, registry } = parts;
  const vms = new SourceVms(parts);
  /** What operators see: each image, and the guest's own state with its memory. */
  const progress = (live: GuestMove | undefined, before: readonly ImageProgress[]): z.infer<typeof reportSchema> => {
    const images = live ? reportOf(live, before) : before;
    for (const image of images) {
      observe({ kind: 'progress', progress: image });
      report(image);
    }
    return { v: 1, images: [...images] };
  };

  /** What earlier attempts have come to, also those of an agent that is gone. */
  const spentBefore = (migrationId: string): readonly ImageProgress[] => {
    const heard = lastReport(reportSchema)?.images ?? [];
    const known = hub.spent.of(migrationId, heard);
    hub.spent.note(migrationId, known);
    return known;
  };

  /** What was begun ahead, where that stands; else a fresh one. */
  const liveMigration = async (
    input: RoundsInput,
    { start, link }: Dwcp,
    migration: SourceMigration,
    ahead: LiveMigration | undefined,
    port: () => Promise<GuestPort>,
  ): Promise<LiveMigration> => {
    const { migrationId, vmId, options } = input;
    const known = { migration, start, linkBytesPerSecond: link.bandwidthBytesPerSecond };
    if (ahead && (await ahead.through(known))) return ahead;
    if (ahead) {
      await ahead.breakOff();
      hub.spent.note(migrationId, reportOf(ahead, hub.spent.of(migrationId)));
    }
    const { images, guest } = await vms.guestOf(input, input.images);
    const headStart =
      hub.takeHeadStart(migrationId) ?? new GuestHeadStart(vmId, images, guest.sharedFiles, hub.context);
    const live = new LiveMigration(
      { vmId, dictionaryKey: dictionaryKeyOf(await registry.get(vmId)), images, guest, headStart, options },
      await port(),
    );
    await live.through(known);
    return live;
  };

  /** Ends a move for a reason. What keeps the guest from running on is worth more than that, but where it is gone. */
  const endLive = async (migrationId: string, reason: unknown): Promise<void> => {
    try {
      await hub.endLive(migrationId);
    } catch (error) {
      if (!hasCode(reason, ...IS_GONE)) throw error;
    }
  };

  const takeOver = async (input: HandOverInput, handedOver: Handed, signal: AbortSignal): Promise<MovedGuest> => {
    const migration = hub.open(input.migrationId, input.destination, input.options);
    return released(input, handedOver, await migration.takeOver(input.vmId, handedOver.roots, signal));
  };

  /** The guest runs there: whatever fails here is tried again and never leads back. */
  const released = async (input: HandOverInput, handedOver: Handed, taken: TakenOver): Promise<MovedGuest> => {
    try {
      hub.live(input.migrationId)?.close();
      await release(input, taken.generation);
    } catch (error) {
      const reason = toDwcpError(error, 'INTERNAL');
      if (reason.spec.retry === 'operator') throw reason;
      throw new DwcpError(
        'HANDOVER_IN_DOUBT',
        `The guest runs on the destination; releasing it here failed: ${reason.message}`,
        { phase: 'switchover', side: 'source', cause: reason },
      );
    }
    return moved(handedOver, taken);
  };

  const moved = ({ live }: Handed, { resumedAtMs, responds }: Omit<TakenOver, 'generation'>): MovedGuest => {
    const downtimeMs = live && resumedAtMs !== undefined ? Math.round(resumedAtMs - live.pausedAtMs) : undefined;
    return {
      guest: {
        rounds: 0,
        reason: '',
        throttle: 0,
        ...live?.guest,
        responds: responds ?? false,
        ...(downtimeMs !== undefined && { downtimeMs, pausedMs: (live?.guest.pausedMs ?? 0) + downtimeMs }),
      },
      images: live?.images ?? [],
    };
  };

  /** What was handed over, also by an agent that is gone. */
  const handed = async ({ vmId, migrationId }: Pick<HandOverInput, 'vmId' | 'migrationId'>): Promise<Handed> =>
    (await journal.handOver(vmId, migrationId)) ?? { roots: {} };

  /**
   * The guest stands still and everything of it has arrived when the line is written.
   * @throws what kept it from that; the guest may stand still yet
   */
  const untilHandedOver = async (
    { migrationId, vmId, destinationHost, destination }: HandOverInput,
    live: GuestMove,
    signal: AbortSignal,
  ): Promise<HandOver> => {
    const { images: moved, roots, pausedAtMs, guest } = await live.pauseGuest(signal, hub.spent.of(migrationId));
    const images = moved.map((image) => ({ ...image, attempts: activityInfo().attempt }));
    for (const result of images) observe({ kind: 'image', result });
    const handOver = { destinationHost, destination, roots, live: { pausedAtMs, guest, images } };
    await ownership.handOver(vmId, migrationId, handOver, () => live.standsStill());
    return handOver;
  };

  return behindBorder(
    {
      /** Disks, then memory, until the guest's pause would be short enough. The guest runs all the while. */
      guestRounds: async (input: ActivityInput<'guestRounds'>): Promise<{ rounds: number; reason: string }> => {
        const { migrationId, vmId, images, options, dwcp } = input;
        spentBefore(migrationId);
        return withHeartbeat(
          () => progress(hub.live(migrationId), hub.spent.of(migrationId)),
          (signal) =>
            hub.ownershipStep(migrationId, signal, async (attempt) => {
              await vms.assertClaimed(vmId, migrationId);
              const vm = await registry.getHere(vmId);
              const definition = vm.guest;
              if (!definition) throw new DwcpError('VM_UNKNOWN', `VM ${vmId} is no guest of this host`);
              const ahead = dwcp && hub.takeAhead(migrationId);
              await hub.endLive(migrationId);
              const migration = hub.open(migrationId, input.destination, options);
              const port = (): Promise<GuestPort> => connect(migrationId, vmId, definition);
              const live = dwcp
                ? await liveMigration(input, dwcp, migration, ahead, port)
                : new WholeGuestMove(migration, { images: vms.located(vm, images), options }, await port());
              hub.setLive(migrationId, live);
              try {
                await live.rounds(attempt);
                const happened = 'the guest is about to be paused here';
                await parts.hooks?.ask('before-pause', { vmId, migrationId, side: 'source', happened }, attempt);
                return { rounds: live.progress([]).guest.round, reason: live.reason };
              } catch (error) {
                await endLive(migrationId, error);
                throw error;
              }
            }),
        );
      },

      /** Pauses the guest, brings the last of it over and hands it over. Past it this host never lets it run again. */
      guestSwitchover: async (input: ActivityInput<'guestSwitchover'>): Promise<MovedGuest> => {
        spentBefore(input.migrationId);
        return withHeartbeat(
          () => progress(hub.live(input.migrationId), hub.spent.of(input.migrationId)),
          (signal) =>
            hub.ownershipStep(input.migrationId, signal, async (attempt) => {
              const { migrationId, vmId } = input;
              const last = await journal.last(vmId, migrationId);
              if (last?.state === 'handed_over') return takeOver(input, await handed(input), attempt);
              if (last?.state === 'releasing' || last?.state === 'released') {
                await ownership.completeRelease(vmId, migrationId);
                return moved(await handed(input), { responds: true });
              }
              if (last?.state !== 'claimed')
                throw new DwcpError('ABANDONED', `Migration ${migrationId} of ${vmId} was rolled back here`);
              const live = hub.live(migrationId);
              if (!live)
                throw new DwcpError('GUEST_RUNS_ON', 'The agent that led the rounds is gone; the guest runs on', {
                  phase: 'switchover',
                  side: 'source',
                });
              const handOver = await untilHandedOver(input, live, attempt).catch(async (error: unknown) => {
                // Whatever it was: nothing is handed over before its line is written, so the guest runs on. Where the
                // line is there, it does not.
                await endLive(migrationId, error);
                throw error;
              });
              const { expectedDowntimeMs } = live.progress([]).guest;
              const rttMs = hub.find(migrationId)?.openSession?.rttMs ?? 0;
              const result = await takeOver(input, handOver, attempt);
              if (live instanceof LiveMigration) {
                const { destinationHost } = input;
                const { linkBytesPerSecond } = live;
                const known = { migrationId, vmId, destinationHost, expectedDowntimeMs, rttMs, linkBytesPerSecond };
                await rememberMove(hub.context, known, result);
              }
              return result;
            }),
        );
      },

      /** What was handed over, where it was; for a hand-over that goes on by way of Temporal. */
      handedOverRoots: async (input: ActivityInput<'handedOverRoots'>): Promise<Record<string, string> | undefined> => {
        const last = await journal.last(input.vmId, input.migrationId);
        return last?.state === 'handed_over' ? (await handed(input)).roots : undefined;
      },

      /** The source's end of a hand-over that went by way of Temporal. */
      releaseGuest: async (input: ActivityInput<'releaseGuest'>): Promise<MovedGuest> =>
        withHeartbeat(
          () => ({ doing: 'releasing the guest' }),
          (signal) =>
            hub.ownershipStep(input.migrationId, signal, async () => released(input, await handed(input), input.taken)),
        ),
    },
    { side: 'source', judge: parts.judge, auditHead: parts.auditHead },
  );
}
