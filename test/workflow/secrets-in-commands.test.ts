/** No secret of a guest's command comes into Temporal: neither with the migration that is refused for it, nor with the refusal. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { temporal } from '@temporalio/proto';
import { VmRegistry } from '../../src/store/vm-registry';
import { writeImage } from '../helpers/data';
import { sharedLab } from '../helpers/lab';

const started = sharedLab();
const SECRET = 'hunter2-of-the-house';

test.each([
  ['object', ['-object', `secret,id=s,data=${SECRET}`]],
  ['broken-object', ['-object', `{"qom-type":"secret","data":"${SECRET}"`]],
  ['fw-cfg', ['-fw_cfg', `name=opt/com.coreos/config,string=${SECRET}`]],
  ['append', ['-append', `root=/dev/vda password=${SECRET}`]],
  ['smbios', ['-smbios', `type=11,value=io.systemd.credential:root=${SECRET}`]],
  ['vnc', ['-vnc', `:1,password=${SECRET}`]],
  ['drive', ['-drive', `file=https://user:${SECRET}@host/x,format=raw`]],
])('%s', async (vmId, words) => {
  const lab = await started();
  const folder = lab.vmFolder(vmId);
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'disk.img');
  writeImage(path, 1024 * 1024, 1);
  await new VmRegistry(lab.a.dataDir).put({
    vmId,
    images: [{ imageId: 'vda', kind: 'disk', path }],
    presence: 'here',
    generation: 0,
    guest: {
      command: ['qemu-system-x86_64', '-m', '64', '-drive', `file=${path},format=raw,if=virtio`, ...words],
      qmpPath: join(folder, 'qmp.sock'),
    },
  });
  const migrationId = await lab.migrate(vmId);
  await expect(lab.result(migrationId)).rejects.toMatchObject({ code: 'GUEST_REFUSED' });
  const { history } = await lab.client.workflowService.getWorkflowExecutionHistory({
    namespace: 'default',
    execution: { workflowId: `migrate-vm:${vmId}` },
  });
  const kept = Buffer.concat(
    (history?.events ?? []).map((event) => Buffer.from(temporal.api.history.v1.HistoryEvent.encode(event).finish())),
  );
  expect(kept.includes('GUEST_REFUSED')).toBe(true);
  expect(kept.includes(SECRET)).toBe(false);
  for (const { name, text } of lab.logs()) expect([name, text.includes(SECRET)]).toEqual([name, false]);
});
