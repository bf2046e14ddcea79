/**
 * What a migration's attempts at its images have come to so far: what another one adds to. Kept while the migration is known here;
 * an agent that dies leaves what its heartbeats said last.
 */
import { forgetOldest } from '../../model/forget-oldest';
import type { ImageProgress } from '../../model/migration';

const MAX_MIGRATIONS = 256;

export class Spent {
  readonly #spent = new Map<string, readonly ImageProgress[]>();

  /** @param heard what an earlier agent had said, where this one knows nothing */
  of(migrationId: string, heard: readonly ImageProgress[] = []): readonly ImageProgress[] {
    return this.#spent.get(migrationId) ?? heard;
  }

  /** Sums, with what was spent before. */
  note(migrationId: string, sums: readonly ImageProgress[]): void {
    const others = this.of(migrationId).filter(({ imageId }) => !sums.some((sum) => sum.imageId === imageId));
    this.#spent.delete(migrationId);
    this.#spent.set(migrationId, [...others, ...sums]);
    forgetOldest(this.#spent, MAX_MIGRATIONS);
  }

  forget(migrationId: string): void {
    this.#spent.delete(migrationId);
  }
}
