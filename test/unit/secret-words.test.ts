/** What of a guest's command may be a secret keeps the guest from leaving, and what is said of it holds no value. */

import { assertNoSecrets } from '../../src/hypervisor/qemu/secret-words';
import type { DwcpError } from '../../src/model/errors';

const SECRET = 'hunter2-of-the-house';

function said(...words: readonly string[]): DwcpError | undefined {
  try {
    assertNoSecrets(['qemu-system-x86_64', ...words]);
    return undefined;
  } catch (error) {
    return error as DwcpError;
  }
}

test.each([
  [['-object', `secret,id=s,data=${SECRET}`], 'an object'],
  [['-object', `qom-type=secret,id=s,data=${SECRET}`], 'an object'],
  [['-object', `{"qom-type":"secret","id":"s","data":"${SECRET}"`], 'an object'],
  [['--object', `secret,id=s,data=${SECRET},,`], 'an object'],
  [['-object', `tls-creds-psk,id=t,dir=/x,username=${SECRET}`], 'an object'],
  [['-object', `sev-guest,id=s,session-file=${SECRET}`], 'an object'],
  [['-fw_cfg', `name=opt/com.coreos/config,string={"passwd":"${SECRET}"}`], 'string='],
  [['-fw_cfg', `opt/x,string=${SECRET}`], 'string='],
  [['-fw_cfg', `{"name":"opt/x","string":"${SECRET}"}`], 'string='],
  [['-fw_cfg', `name=opt/ovmf/x,string=${SECRET.repeat(4)}`], 'string='],
  [['-smbios', `type=11,value=io.systemd.credential:a=${SECRET}`], 'systemd'],
  [['-smbios', `type=11,value=${SECRET}`], 'value='],
  [['-append', `root=/dev/vda systemd.set_credential=a:${SECRET}`], 'systemd'],
  [['-append', `root=/dev/vda PASSWORD=${SECRET}`], 'password='],
  [['-append', `kubeadm.token="${SECRET}" quiet`], 'token='],
  [['-append', `db_pwd:${SECRET}`], 'pwd='],
  [['-vnc', `:1,password=${SECRET}`], 'password='],
  [['-spice', `port=1,password=${SECRET}`], 'password='],
  [['-iscsi', `user=u,password=${SECRET}`], 'password='],
  [['-iscsi', `user=u,password-secret=${SECRET}`], 'secret='],
  [['-drive', `file=https://user:${SECRET}@host/x,format=raw`], 'address'],
  [['-drive', `file=rbd:pool/image:id=a:key=${SECRET},format=raw`], 'Ceph'],
  [['-device', `virtio-blk-pci,api-key=${SECRET}`], 'api-key='],
  [['-global', `x.secret=${SECRET}`], 'secret='],
  [[`password=${SECRET}`], '-hda with password='],
  [['-no-such-option', `token=${SECRET}`], 'token='],
] as const)('%j stays here', (words, what) => {
  const error = said('-m', '64', ...words);
  expect(error).toMatchObject({ code: 'GUEST_REFUSED', side: 'source' });
  expect(error?.message).toContain(what);
  expect(JSON.stringify(error?.report())).not.toContain(SECRET.slice(0, 7));
});

test.each([
  ['-vnc', '127.0.0.1:1,password=on'],
  ['-vnc', '127.0.0.1:1,password'],
  ['-fw_cfg', 'name=opt/org.tianocore/IPv4PXESupport,string=n'],
  ['-fw_cfg', 'opt/ovmf/X-PciMmio64Mb,string=65536'],
  ['-smbios', 'type=1,manufacturer=Token Ltd,serial=pass-1'],
  ['-append', 'console=ttyS0 root=/dev/vda init=/bin/sh rd.luks.name=8f2d=root audit=off'],
  ['-object', 'memory-backend-memfd,id=m,size=1G,share=on'],
  ['-object', 'rng-random,id=r,filename=/dev/urandom'],
  ['-drive', 'file=/vms/secret/token.raw,format=raw,if=virtio'],
  ['-name', 'guest=secret-keeper,debug-threads=on'],
  ['-netdev', 'user,id=n,hostname=password-server'],
  ['-device', 'virtio-serial-pci,id=tokens'],
])('%s %s may go', (...words) => {
  expect(said(...words)).toBeUndefined();
});
