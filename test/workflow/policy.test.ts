/** A move that the policy refuses once the source has said whose VM it is: the source has it back, the destination has had nothing. */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lab } from '../helpers/lab';

it('a VM of a tenant that the operator may not move stays, told in one line, and moves when they may', async () => {
  const lab = await Lab.start({ own: true });
  const { hashes } = await lab.defineVm('theirs', 4 * 1024 * 1024);
  const policy = join(lab.trust.path, 'policy.yaml');
  writeFileSync(policy, 'roles: { movers: { may: [move], tenants: [acme] } }\noperators: { local: [movers] }\n');
  const refused = await lab.migrate('theirs', { migrationId: 'refused' });
  await expect(lab.result(refused)).rejects.toMatchObject({
    code: 'NOT_AUTHORISED',
    message: 'The control plane does not authorise that: operator local may move no VM without a tenant',
  });
  expect(existsSync(join(lab.b.dataDir, 'images', 'theirs'))).toBe(false);
  await lab.untilClean();
  rmSync(policy);
  await lab.result(await lab.migrate('theirs', { migrationId: 'allowed' }));
  expect(lab.hashesOnB('theirs')).toEqual(hashes);
}, 180_000);
