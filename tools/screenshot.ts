/**
 * `npm run screenshot`: the pictures of the README, of a real migration in the Temporal UI, taken with headless Chromium:
 * one under way with a limited rate, and one that is parked because its image cannot be read.
 */
import { randomBytes } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { say } from '../bench/report';
import { Stage } from '../bench/stage';
import { makeDiskImage } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import type { MigrationStatus } from '../src/control/migration-status';
import { migrationWorkflowId } from '../src/model/names';
import { MIB } from '../src/model/units';

const FOLDER = join(__dirname, '..', '..', 'docs', 'images');
const WINDOW = { width: 1440, height: 1150 };

async function main(): Promise<void> {
  const stage = new Stage({
    name: 'screenshot',
    a: { hostId: 'zrh-12', address: '127.0.0.1' },
    b: { hostId: 'fra-03', address: '127.0.0.2' },
    withUi: true,
  });
  let browser: Browser | undefined;
  try {
    const executablePath = await findTool('chromium', 'chromium', stage.children, say);
    if (executablePath === undefined) throw new Error('Chromium is needed for pictures');
    await stage.start();
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
    const page = await browser.newPage({ viewport: WINDOW });
    const picture = async (name: string, vmId: string, tab: string): Promise<void> => {
      await page.goto(
        `${stage.uiAddress ?? ''}/namespaces/default/workflows/${encodeURIComponent(migrationWorkflowId(vmId))}`,
      );
      await page.getByText(tab, { exact: true }).first().click();
      await page.waitForTimeout(3000);
      await page.screenshot({ path: join(FOLDER, `${name}.png`) });
      say(`docs/images/${name}.png`);
    };
    const until = async (id: string, holds: (status: MigrationStatus) => boolean): Promise<void> => {
      while (!holds(await stage.orchestrator.getMigrationStatus(id)))
        await new Promise((resolve) => setTimeout(resolve, 200));
    };

    const disk = join(stage.folder, 'web-7.img');
    await makeDiskImage(disk, 512 * MIB, stage.children, await findTool('mkfs.ext4', 'e2fsprogs', stage.children, say));
    await stage.defineVm('web-7', stage.a, [{ imageId: 'vda', kind: 'disk', path: disk }]);
    const moving = await stage.orchestrator.migrateVm('web-7', stage.a.hostId, stage.b.hostId, { bandwidthLimit: 4e6 });
    await until(moving, ({ live }) => live.some((image) => image.doneBytes > 0.4 * image.totalBytes));
    await picture('temporal-ui-running', 'web-7', 'Timeline');
    await picture('temporal-ui-details', 'web-7', 'User Metadata');

    const gone = join(stage.folder, 'db-2.img');
    writeFileSync(gone, randomBytes(MIB));
    await stage.defineVm('db-2', stage.a, [{ imageId: 'vda', kind: 'disk', path: gone }]);
    renameSync(gone, `${gone}.away`);
    const parked = await stage.orchestrator.migrateVm('db-2', stage.a.hostId, stage.b.hostId);
    await until(parked, ({ progress }) => progress?.parked !== undefined);
    await picture('temporal-ui-parked', 'db-2', 'User Metadata');
  } finally {
    await browser?.close();
    await stage.stop();
  }
}

main().then(
  () => process.exit(),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
