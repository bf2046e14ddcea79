/** What `dwcp status --encodings` tells of a finished migration: every byte on the link has a place. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodingsText } from '../../src/cli/encodings';
import type { MigrationStatus } from '../../src/control/migration-status';
import { collectMetrics } from '../../src/control/orchestrator-metrics';
import { migrationResultSchema } from '../../src/model/migration';

const golden = migrationResultSchema.parse(
  JSON.parse(readFileSync(join(__dirname, '..', '..', '..', 'contract', 'go', 'testdata', 'result.json'), 'utf8')),
);

test('names each encoding that was used, with its blocks and bytes, and what is neither', () => {
  const text = encodingsText(golden);
  const rows = text.split('\n').map((line) => line.replace(/ {2,}/g, ' | '));
  expect(rows[0]).toBe('vda: 249 MiB on the link for 1.00 GiB');
  expect(rows).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^in full \| 9800 \| 238 MiB \| 95\.8 %/),
      expect.stringMatching(/^deltas of moved content \| 6 \| 68\.4 KiB/),
      expect.stringMatching(/^held elsewhere there \| 9 /),
      // 261 095 424 on the link, less what the encodings and heads take.
      expect.stringMatching(/^frames, manifests, sent again \| 9 \| 9\.86 MiB/),
    ]),
  );
  expect(text).toContain('packing 9.1 s');
});

test('is added up over migrations, and by their tiers', () => {
  const status = (tier: 'local' | 'global') =>
    ({
      migrationId: 'm',
      workflowId: 'w',
      state: 'completed',
      live: [],
      result: { ...golden, tier },
    }) as unknown as MigrationStatus;
  const { hde } = collectMetrics([status('local'), status('global'), status('global')]).adapter_metrics;
  expect(hde.bytes_by_encoding).toMatchObject({ full: 750_000_000, oldPages: 210_000 });
  expect(hde.seconds_by_stage.pack).toBeCloseTo(27.3);
  expect([hde.by_tier.local?.reference_hits, hde.by_tier.global?.reference_hits]).toEqual([9, 18]);
});
