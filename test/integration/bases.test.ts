/**
 * Bases: disks of the destination that are public within a tenant spare what arriving VMs have in common with them, and
 * never cost more than bytes.
 */
import { copyFileSync, openSync, statSync, utimesSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { registerBase } from '../../src/sync/upkeep/base-registration';
import { changeImage, sha256 } from '../helpers/data';
import { diskLab, type Lab, onB, SIZE } from '../helpers/disk-lab';
import { moveVm } from '../helpers/moves';

/** A VM at `a` whose disk was made from a base that lies at `b`, moved by some bytes of its own. */
async function lab({
  vmTenant,
  baseTenant,
}: {
  readonly vmTenant?: string;
  readonly baseTenant: string;
}): Promise<Lab & { readonly base: string }> {
  const here = await diskLab();
  const { a, b, disk, folder } = here;
  const base = join(folder, 'base.img');
  copyFileSync(disk, base);
  changeImage(disk, SIZE, 3);
  await a.registry.put({ ...(await a.registry.get('vm')), ...(vmTenant !== undefined && { tenant: vmTenant }) });
  await registerBase({ name: 'debian', tenant: baseTenant, path: base }, b.bases, b.source.pool);
  return { ...here, base };
}

describe('a base at the destination', () => {
  it('spares what a VM of its tenant has in common with it, and the VM keeps its tenant', async () => {
    const here = await lab({ vmTenant: 'acme', baseTenant: 'acme' });
    const before = sha256(here.disk);
    const [sent] = await moveVm('m1', 'vm', here.a, here.b);
    expect(sha256(onB(here))).toBe(before);
    expect(sent!.counts.account.blocks.references).toBeGreaterThan(100);
    expect(sent!.counts.refusedBlocks).toBe(0);
    expect(sent!.linkBytes).toBeLessThan(SIZE / 10);
    expect((await here.b.registry.find('vm'))?.tenant).toBe('acme');
  });

  it.each([
    ['another tenant', { vmTenant: 'acme', baseTenant: 'other' }],
    ['no tenant', { baseTenant: 'acme' }],
    ['no tenant, where it has none either', { baseTenant: '' }],
    ['a tenant without a name', { vmTenant: '', baseTenant: '' }],
  ])('is not referred to by a VM of %s', async (_, tenants) => {
    const here = await lab(tenants);
    const [sent] = await moveVm('m1', 'vm', here.a, here.b);
    expect(sent!.counts.account.blocks.references).toBe(0);
  });

  it('is used no more once its file was touched', async () => {
    const here = await lab({ vmTenant: 'acme', baseTenant: 'acme' });
    utimesSync(here.base, new Date(), new Date(0));
    const [sent] = await moveVm('m1', 'vm', here.a, here.b);
    expect(sent!.counts.account.blocks.references).toBe(0);
  });

  it('that holds something else by now costs a resend, no harm', async () => {
    const here = await lab({ vmTenant: 'acme', baseTenant: 'acme' });
    const { atime, mtime, mtimeMs } = statSync(here.base);
    const file = openSync(here.base, 'r+');
    for (let at = 0; at < SIZE; at += 3 * 65_536) writeSync(file, Buffer.from('changed without a trace'), 0, 23, at);
    utimesSync(here.base, atime, mtime);
    const [registered] = await here.b.bases.list();
    await here.b.bases.put(
      { ...registered!, modifiedAtMs: statSync(here.base).mtimeMs },
      (await here.b.bases.pagesOf(registered!))!,
    );
    expect(mtimeMs).toBeGreaterThan(0);
    const before = sha256(here.disk);
    const [sent] = await moveVm('m1', 'vm', here.a, here.b);
    expect(sha256(onB(here))).toBe(before);
    expect(sent!.counts.refusedBlocks).toBeGreaterThan(0);
    expect(sent!.counts.account.blocks.references).toBeGreaterThan(0);
  });
});
