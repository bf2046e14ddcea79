/** Walls between tenants: what a host keeps of a VM is that VM's own, also against another that is called the same. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { baselinePathOf } from '../../src/store/baselines';
import { sha256 } from '../helpers/data';
import { diskLab, type Lab, SIZE } from '../helpers/disk-lab';
import { startHost, type TestHost } from '../helpers/hosts';
import { moveVm, prepareMove, sendImage } from '../helpers/moves';

/** The disk's content stays at `a` as baseline when the VM has moved to `b`; `c` has a VM of the same name with the same content. */
async function lab(
  tenant: string | undefined,
  otherTenant: string | undefined,
): Promise<Lab & { readonly c: TestHost }> {
  const here = await diskLab();
  const { a, b, disk, folder } = here;
  const look = (name: string | undefined): object => (name === undefined ? {} : { tenant: name });
  await a.registry.put({ ...(await a.registry.get('vm')), ...look(tenant) });
  const content = readFileSync(disk);
  await moveVm('m1', 'vm', a, b);
  expect(existsSync(baselinePathOf(disk))).toBe(true);
  const c = await startHost('c', join(folder, 'c'));
  mkdirSync(join(folder, 'other'));
  const path = join(folder, 'other', 'disk.img');
  writeFileSync(path, content);
  await c.registry.put({
    vmId: 'vm',
    images: [{ imageId: 'vda', kind: 'disk', path }],
    presence: 'here',
    generation: 0,
    ...look(otherTenant),
  });
  return { ...here, c };
}

describe('a baseline', () => {
  it('serves the VM that it is of, which keeps its uuid wherever it goes', async () => {
    const here = await lab('acme', 'acme');
    const { uuid } = await here.b.registry.get('vm');
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect([back!.began, back!.linkBytes < SIZE / 100]).toEqual(['baseline', true]);
    expect(await here.a.registry.get('vm')).toMatchObject({ uuid, tenant: 'acme' });
  });

  it.each([
    ['of another tenant', 'acme', 'other'],
    ['of no tenant', 'acme', undefined],
    ['of a tenant, where it was of none', undefined, 'other'],
    ['of the same tenant', 'acme', 'acme'],
    ['of no tenant, where it was of none either', undefined, undefined],
  ])('serves no other VM that is called the same, %s', async (_, tenant, otherTenant) => {
    const here = await lab(tenant, otherTenant);
    const move = await prepareMove('m2', 'vm', here.c, here.a);
    const migration = here.c.sources.open('m2', here.a.destinationFor('m2', here.c.hostId), {
      bandwidthLimit: 0,
      priority: 5,
    });
    const { control } = await migration.session();
    const { body } = await control.request('open_image', { imageId: 'vda', useBaseline: true });
    expect(body).toMatchObject({ state: 'empty', zero: true });
    const record = JSON.parse(readFileSync(join(here.a.dataDir, 'baselines', 'vm', 'vda.json'), 'utf8')) as {
      root: string;
    };
    expect(JSON.stringify(body)).not.toContain(record.root);
    await expect(control.request('finish_image', { image: 0, root: record.root })).rejects.toMatchObject({
      code: 'INTEGRITY_MISMATCH',
    });
    expect(existsSync(baselinePathOf(here.disk))).toBe(true);
    const sent = await sendImage(move, 'vda');
    expect([sent.began, sent.linkBytes > SIZE / 10]).toEqual(['empty', true]);
  });

  it('of an earlier release, which says of nobody whose it is, serves nobody', async () => {
    const here = await lab('acme', 'acme');
    const path = join(here.a.dataDir, 'baselines', 'vm', 'vda.json');
    const { tenant, uuid, ...before } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    writeFileSync(path, JSON.stringify(before));
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect([back!.began, typeof uuid, tenant]).toEqual(['empty', 'string', 'acme']);
    expect(sha256(here.disk)).toBe(sha256(here.disk));
  });

  it('serves no direct session that names the VM', async () => {
    const here = await lab('acme', 'acme');
    const migration = here.c.sources.open('d1', here.a.destinationFor('d1', here.c.hostId), {
      bandwidthLimit: 0,
      priority: 5,
    });
    const { control } = await migration.session();
    const { tenant, uuid } = await here.b.registry.get('vm');
    const record = {
      migrationId: 'd1',
      vmId: 'vm',
      mode: 'direct',
      fence: 0,
      generation: 0,
      sourceHost: 'c',
      images: [{ imageId: 'vda', kind: 'disk', sizeBytes: SIZE }],
    };
    for (const claimed of [{ tenant }, { uuid }])
      await expect(control.request('prepare', { record: { ...record, ...claimed } })).rejects.toMatchObject({
        code: 'PROTOCOL_VIOLATION',
      });
    await control.request('prepare', { record });
    expect((await here.a.hub.incoming.get('d1')).record.tenant).toBeUndefined();
    const { body } = await control.request('open_image', { imageId: 'vda', useBaseline: true });
    expect(body).toMatchObject({ state: 'empty' });
  });
});

it('a VM that an earlier release has put here gets its uuid when it is claimed', async () => {
  const { a, b } = await diskLab();
  const path = join(a.dataDir, 'vms', 'vm.json');
  const { uuid: _, ...before } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify(before));
  await moveVm('m1', 'vm', a, b);
  const [left, arrived] = [await a.registry.get('vm'), await b.registry.get('vm')];
  expect(left.uuid).toMatch(/^[0-9a-f-]{36}$/);
  expect(arrived.uuid).toBe(left.uuid);
});
