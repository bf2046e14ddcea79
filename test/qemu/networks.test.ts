/**
 * The networks of a guest that comes, on real bridges and taps: what its destination's configuration gives it is there and leads somewhere,
 * or it is refused by name before anything is sent. Each in namespaces of its own.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { prepareStoppedGuest, type StoppedPlace } from '../../src/hypervisor/qemu/prepare-guest';
import type { StoppedGuest } from '../../src/model/guest';
import { temporaryFolder } from '../helpers/data';
import { NO_HARDWARE } from '../helpers/hardware';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import type { ChildAnswer, ChildTask } from '../helpers/network-child';
import { needsQemu } from '../helpers/qemu';

const CHILD = join(__dirname, '..', 'helpers', 'network-child.js');
const COMMAND = ['qemu-system-x86_64', '-accel', 'tcg', '-m', '64', '-display', 'none', '-nodefaults'];
const BRIDGE = 'ip link add vmbr3 type bridge && ip link set vmbr3 up';
const TAP = 'ip tuntap add web7 mode tap && ip link set web7 up';
const IN_BRIDGE = `${BRIDGE} && ${TAP} && ip link set web7 master vmbr3`;
/** QEMU's helper asks it whether it may; nothing else here needs what lies there. */
const ACL =
  'mount -t tmpfs tmpfs /etc && mkdir /etc/qemu && echo "allow vmbr3" > /etc/qemu/bridge.conf && echo root:x:0:0::/: > /etc/passwd';
const OF_BRIDGE = ['-netdev', 'bridge,id=n0,br=br-web', '-device', 'virtio-net-pci,netdev=n0'];
const OF_TAP = ['-netdev', 'tap,id=n0,ifname=tap7,script=no,downscript=no', '-device', 'virtio-net-pci,netdev=n0'];

let folder = '';
beforeEach(() => (folder = temporaryFolder()));

function place(networks: readonly string[], extra: Partial<StoppedPlace['policy']> = {}): StoppedPlace {
  return {
    vmId: 'vm',
    images: [],
    runFolder: join(folder, 'run', 'vm'),
    tryFolder: join(folder, 'try', 'vm'),
    policy: { qemuFolder: '', folders: [], networks, ...extra },
  };
}

function stopped(args: readonly string[], bridges?: Record<string, string>): StoppedGuest {
  return { command: [...COMMAND, ...args], diskPaths: {}, rawDisks: [], needsFiles: [], ...(bridges && { bridges }) };
}

/** @param setUp of the namespaces, as root of them; what it has as $held and $fd stands for "PID" and FD in the task */
function inNetworks(setUp: string, task: ChildTask | Readonly<Record<string, unknown>>): ChildAnswer {
  const filled = `text=$(printf %s '${JSON.stringify(task)}' | sed "s/.PID./$held/; s/FD/$fd/")`;
  const script = `mount -t sysfs sysfs /sys && ${setUp || ':'} && ${filled} && exec "$0" "$1" "$text"`;
  const args = '--net --mount --pid --fork --mount-proc --kill-child sh -c'.split(' ');
  const said = execFileSync('unshare', [...args, script, process.execPath, CHILD], {
    encoding: 'utf8',
    timeout: 25_000,
  });
  return JSON.parse(said) as ChildAnswer;
}

describeWhere([needsRoot(), needsQemu(), needsProgram('ip', 'iproute2', '/usr/sbin', '/sbin')])(
  'a guest’s networks',
  () => {
    test.each([
      [
        'no bridge',
        '',
        ['br-web=vmbr3'],
        OF_BRIDGE,
        /network br-web \(-netdev n0\) is bridge vmbr3 here, which there is not: .*ip link add vmbr3/,
      ],
      ['no bridge of that name', '', ['br-web=lo'], OF_BRIDGE, /lo here, which is no bridge/],
      [
        'a bridge that is down',
        'ip link add vmbr3 type bridge',
        ['br-web=vmbr3'],
        OF_BRIDGE,
        /which is down: ip link set vmbr3 up/,
      ],
      [
        'nothing said of it',
        BRIDGE,
        ['br-db=vmbr3'],
        OF_BRIDGE,
        /"br-web" is none of the networks.*guestNetworks \(br-web=bridge:BRIDGE/,
      ],
      [
        'no helper',
        `${BRIDGE} && mount -t tmpfs tmpfs /usr/lib/qemu`,
        ['br-web=vmbr3'],
        OF_BRIDGE,
        /network br-web .*qemu-bridge-helper is missing: install it/,
      ],
      ['a bridge that QEMU’s helper may not use', BRIDGE, ['br-web=vmbr3'], OF_BRIDGE, /acl file|bridge\.conf/],
      [
        'no tap',
        BRIDGE,
        ['tap7=web7'],
        OF_TAP,
        /network tap7 \(-netdev n0\) is tap web7 here, which there is not: .*ip tuntap add web7/,
      ],
      ['no tap of that name', '', ['tap7=lo'], OF_TAP, /lo here, which is no tap/],
      ['a tap in no bridge', TAP, ['tap7=web7'], OF_TAP, /web7 here, which is in no bridge: .*isolated/],
      ['a tap that is down', 'ip tuntap add web7 mode tap', ['tap7=web7'], OF_TAP, /ip link set web7 up/],
      [
        'a script that is none',
        BRIDGE,
        ['*=script:/no/such/script'],
        OF_BRIDGE,
        /made by \/no\/such\/script here, which is no program/,
      ],
      [
        'a helper that is none',
        BRIDGE,
        ['*=helper:/no/helper:vmbr3'],
        OF_BRIDGE,
        /made by \/no\/helper here, which is no program/,
      ],
    ])('there is %s: refused in one line that names it and the mend', (_what, setUp, networks, args, words) => {
      const said = inNetworks(setUp, { stopped: stopped(args), place: place(networks) });
      expect(said).toMatchObject({ code: 'GUEST_REFUSED', message: expect.stringMatching(words) as unknown });
      expect(said.message).not.toContain('\n');
    });

    test('a tap that another QEMU has is refused, with the process that has it', () => {
      const holder = `qemu-system-x86_64 -M none -display none -S -netdev tap,id=n,ifname=web7,script=no,downscript=no & sleep 2`;
      const said = inNetworks(`${IN_BRIDGE} && { ${holder}; }`, {
        stopped: stopped(OF_TAP),
        place: place(['tap7=web7']),
      });
      expect(said.message).toMatch(/tap web7 here, which is taken by process \d+ \(qemu-system-x86\)/);
    });

    test.each([
      ['a tap in a bridge', IN_BRIDGE, ['tap7=web7'], OF_TAP, 'tap,id=n0,ifname=web7,script=no,downscript=no'],
      ['a tap by itself', TAP, ['tap7=tap:web7:isolated'], OF_TAP, 'tap,id=n0,ifname=web7,script=no,downscript=no'],
      ['a bridge, by QEMU’s helper', `${BRIDGE} && ${ACL}`, ['br-web=vmbr3'], OF_BRIDGE, 'bridge,id=n0,br=vmbr3'],
      ['a bridge for a tap of one', `${BRIDGE} && ${ACL}`, ['br-web=vmbr3'], OF_TAP, 'bridge,id=n0,br=vmbr3'],
      ['QEMU’s own', '', ['br-web=user'], OF_BRIDGE, 'user,id=n0'],
    ])('%s: its QEMU starts on it', (_what, setUp, networks, args, expected) => {
      const said = inNetworks(setUp, { stopped: stopped(args, { tap7: 'br-web' }), place: place(networks) });
      expect(said.message).toBeUndefined();
      expect(said.command).toContain(expected);
    });

    test('a script and a helper of the host’s put the guest in its network', () => {
      const [script, helper, seen] = ['up', 'helper', 'seen'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      writeFileSync(script, `#!/bin/sh\necho up "$1" >> ${seen}\nip link set "$1" master vmbr3 up\n`, { mode: 0o755 });
      writeFileSync(helper, `#!/bin/sh\necho "$@" >> ${seen}\nexec /usr/lib/qemu/qemu-bridge-helper "$@"\n`, {
        mode: 0o755,
      });
      const by = (target: string): ChildAnswer =>
        inNetworks(`${BRIDGE} && ${ACL}`, { stopped: stopped(OF_BRIDGE), place: place([`br-web=${target}`]) });
      expect(by(`script:${script}`).command).toContain(`tap,id=n0,script=${script},downscript=no`);
      expect(by(`helper:${helper}:vmbr3`).command).toContain(`tap,id=n0,br=vmbr3,helper=${helper}`);
      expect(readFileSync(seen, 'utf8')).toMatch(/^up tap0\n.*--br=vmbr3/);
    });

    test('a running guest keeps what its virtio card has promised its driver: refused where this host’s network has not that', () => {
      const to = (networks: string, args: readonly string[]): string | undefined => {
        const running = {
          ...{ command: [...COMMAND, ...args], diskPaths: {}, qemuVersion: '10.0.0', machine: 'pc-q35-10.0' },
          ...{ needsFiles: [], ramBlocks: [], sharedFiles: [], hardware: NO_HARDWARE },
        };
        return inNetworks(IN_BRIDGE, { running, place: place([networks]) }).message;
      };
      expect(to('tap7=user', OF_TAP)).toMatch(/network tap7 .*offloads.*or move it stopped/);
      expect(
        to(
          'tap7=user',
          OF_TAP.map((word) => word.replace('virtio-net-pci', 'e1000')),
        ),
      ).toBeUndefined();
      expect(
        to(
          'tap7=bridge:vmbr3',
          OF_TAP.map((word) => word.replace('downscript=no', 'downscript=no,queues=4')),
        ),
      ).toMatch(/4 queues/);
      expect(to('tap7=bridge:vmbr3', OF_TAP)).toBeUndefined();
    });

    test('a tap that came as a descriptor goes by its name, and by its bridge’s; what cannot be seen stays, and is refused', () => {
      const holds =
        'qemu-system-x86_64 -M none -display none -S -netdev tap,id=n,ifname=web7,script=no,downscript=no & held=$!; sleep 2; ' +
        'fd=$(grep -l "iff:.*web7" /proc/$held/fdinfo/* | sed "s,.*/,,")';
      const named = inNetworks(`${IN_BRIDGE} && { ${holds}; }`, {
        command: ['qemu', '-netdev', 'tap,id=n0,fd=FD,vhost=on,vhostfd=31', '-netdev', 'tap,id=n1,fd=99'],
        pid: 'PID',
      });
      expect(named).toEqual({
        command: [
          ...['qemu', '-netdev', 'tap,id=n0,vhost=on,ifname=web7,script=no,downscript=no'],
          ...['-netdev', 'tap,id=n1,fd=99'],
        ],
        bridges: { web7: 'vmbr3' },
      });
    });
  },
);

describeWhere([needsQemu()])('a port that is forwarded to a guest', () => {
  test('is taken here: refused with the port and who has it; free, it is forwarded', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const guest = stopped(['-nic', `user,hostfwd=tcp:127.0.0.1:${port}-:22`]);
    const here = place([], { guestPorts: [{ address: '127.0.0.1', first: port, last: port }] });
    await expect(prepareStoppedGuest(guest, here, false)).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(
        new RegExp(`port 127\\.0\\.0\\.1:${port} \\(tcp\\).* is taken by process ${process.pid} \\(`),
      ) as unknown,
    });
    await expect(prepareStoppedGuest(guest, place([]), false)).rejects.toThrow(/guestPorts/);
    await new Promise((resolve) => server.close(resolve));
    const { definition } = await prepareStoppedGuest(guest, here, false);
    expect(definition.command).toContain(`user,hostfwd=tcp:127.0.0.1:${port}-:22`);
    expect(existsSync(join(folder, 'try', 'vm'))).toBe(false);
  });
});
