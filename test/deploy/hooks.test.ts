/** The two hooks that we ship, on a real bridge in a network namespace of its own, and with what speaks as HAProxy's runtime API does. */
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { temporaryFolder } from '../helpers/data';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';

const SHIPPED = join(__dirname, '../../../deploy/hooks');
const MAC = '52:54:00:aa:00:01';
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:${dirname(process.execPath)}`;

/** As an operator puts it there. */
function installed(event: string, name: string, beside: string, settings: unknown): string {
  const hooks = temporaryFolder();
  mkdirSync(join(hooks, `${event}.d`));
  const path = join(hooks, `${event}.d`, name);
  copyFileSync(join(SHIPPED, name), path);
  writeFileSync(join(hooks, beside), JSON.stringify(settings));
  return path;
}

describeWhere([needsRoot(), needsProgram('ip', 'iproute2'), needsProgram('unshare', 'util-linux')])(
  'announce-network',
  () => {
    const hook = installed('after-start', 'announce-network.mjs', 'addresses.json', { [MAC]: ['192.0.2.7'] });
    const told = (
      event: string,
      side: string,
      networks: unknown = [{ mac: MAC, kind: 'tap', interface: 'tap7' }],
    ): string => `echo '${JSON.stringify({ event, side, networks })}' | ${hook}`;
    const look = 'echo "NEIGH $(ip neigh show dev br0)"; echo "FDB $(bridge fdb show br br0)"';

    function inNamespace(...steps: readonly string[]): SpawnSyncReturns<string> {
      const made =
        'ip link add br0 type bridge; ip link add tap7 type veth peer name far7; ip link set tap7 master br0; for each in far7 tap7 br0; do ip link set $each up; done';
      return spawnSync(
        'unshare',
        ['--net', 'sh', '-ec', [made, 'ip address add 192.0.2.1/24 dev br0', ...steps].join('\n')],
        {
          encoding: 'utf8',
          env: { PATH },
        },
      );
    }

    it('where the guest runs now its addresses are there; where it was they go; and come again where it stays', () => {
      const { stdout, stderr, status } = inNamespace(
        ...[told('after-start', 'destination'), look, told('released', 'source'), look],
        ...[told('rolled-back', 'source'), look, told('rolled-back', 'destination'), look],
      );
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      const neighbours = stdout.split('\n').filter((line) => line.startsWith('NEIGH'));
      expect(neighbours.map((line) => line.includes(`192.0.2.7 lladdr ${MAC} REACHABLE`))).toEqual([
        true,
        false,
        true,
        false,
      ]);
      expect(stdout).toMatch(new RegExp(`FDB [^]*${MAC} dev tap7 master br0`));
    });

    it('tracked connections of its addresses are forgotten where there is a program for that', () => {
      const programs = temporaryFolder();
      writeFileSync(join(programs, 'conntrack'), `#!/bin/sh\necho "$@" >> ${programs}/asked\n`, { mode: 0o755 });
      const { stdout } = inNamespace(
        `export PATH=${programs}:$PATH`,
        told('after-start', 'destination'),
        `cat ${programs}/asked`,
      );
      expect(stdout).toMatch(/^-D --orig-src 192\.0\.2\.7\n-D --orig-dst 192\.0\.2\.7$/m);
    });

    it('cards on no bridge, and addresses that nobody has named, are nobody’s business', () => {
      const none = [
        { mac: '52:54:00:aa:00:09', kind: 'user' },
        { kind: 'tap', interface: 'tap7' },
      ];
      expect(inNamespace(told('after-start', 'destination', none), look)).toMatchObject({ status: 0, stderr: '' });
    });

    it('what the kernel refuses is said, and the hook has failed', () => {
      const other = [{ mac: MAC, kind: 'bridge', bridge: 'br-not-there' }];
      const { stdout, status } = inNamespace(told('after-start', 'destination', other));
      expect(status).toBe(1);
      expect(stdout).toMatch(/br-not-there/);
    });
  },
);

describe('load-balancer', () => {
  let server: Server;
  let [asked, answer] = [[] as string[], ''];
  beforeEach(async () => {
    [asked, answer] = [[], '\n'];
    server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('data', (chunk: Buffer) => {
        asked.push(chunk.toString('utf8').trim());
        socket.end(answer);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterEach(() => server.close());

  const settings = (haproxy: string): unknown => ({
    haproxy,
    vms: { 'web-7': { server: 'web/web-7', addresses: { 'fra-03': '192.0.2.70' } } },
  });
  async function told(event: string, side: string, { vm = 'web-7', host = 'zrh-12', haproxy = '' } = {}) {
    const { port } = server.address() as { port: number };
    const hook = installed(event, 'load-balancer.mjs', 'load-balancer.json', settings(haproxy || `127.0.0.1:${port}`));
    const child = spawn(hook, [], { env: { PATH } });
    const said: string[] = [];
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk.toString('utf8')));
    child.stdin.end(JSON.stringify({ event, side, vm, host }));
    const status = await new Promise<number | null>((resolve) => void child.once('close', resolve));
    return { status, said: said.join('') };
  }

  it('drains it before its pause, sends it its work where it runs, and also where it stays', async () => {
    expect(await told('before-pause', 'source')).toEqual({ status: 0, said: '' });
    expect(await told('after-start', 'destination', { host: 'fra-03' })).toEqual({ status: 0, said: '' });
    expect(await told('rolled-back', 'source')).toEqual({ status: 0, said: '' });
    expect(await told('rolled-back', 'destination', { host: 'fra-03' })).toEqual({ status: 0, said: '' });
    expect(asked).toEqual([
      'set server web/web-7 state drain',
      'set server web/web-7 addr 192.0.2.70',
      'set server web/web-7 state ready',
      'set server web/web-7 state ready',
    ]);
  });

  it('a guest that it does not know of is not its business', async () => {
    expect(await told('before-pause', 'source', { vm: 'constructor' })).toEqual({ status: 0, said: '' });
    expect(asked).toEqual([]);
  });

  it.each([
    ['HAProxy refuses', 'No such server.\n', {}, /web\/web-7: No such server\./],
    ['nobody listens', '\n', { haproxy: '127.0.0.1:1' }, /127\.0\.0\.1:1 does not set web\/web-7/],
  ])('%s: it says no, in one line', async (_what, answers, where, words) => {
    answer = answers;
    const { status, said } = await told('before-pause', 'source', where);
    expect(status).toBe(1);
    expect(said.trim().split('\n')).toHaveLength(1);
    expect(said).toMatch(words);
  });
});
