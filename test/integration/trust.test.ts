/** Whom an agent believes, from its first start on: alone on a machine, on a second one, and where there is nothing to believe by. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { openHost } from '../../src/agent/host';
import { joinControlPlane } from '../../src/agent/join';
import { freePort } from '../../src/control/embedded-server';
import { PROCESS_OPTIONS, type ProcessOptions, withDefaults } from '../../src/model/options';
import { CredentialFiles } from '../../src/trust/credential-files';
import { type Invitation, invite } from '../../src/trust/invitation';
import { PeerTrust } from '../../src/trust/peer-trust';
import { TrustFolder } from '../../src/trust/trust-folder';
import { temporaryFolder } from '../helpers/data';
import { startHost } from '../helpers/hosts';
import { sharedTrust } from '../helpers/identities';
import { connectPeer } from '../helpers/peer';
import { until } from '../helpers/waiting';

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});

async function optionsOf(machine: string, more: Partial<ProcessOptions> = {}): Promise<ProcessOptions> {
  const home = join(folder, machine);
  mkdirSync(home, { recursive: true });
  return withDefaults(PROCESS_OPTIONS, {
    hostId: machine,
    dataDir: join(home, 'data'),
    trustDir: join(home, 'trust'),
    port: await freePort(),
    workerThreads: 1,
    ...more,
  });
}

describe('an agent', () => {
  it('that others reach refuses to start where it has nothing to know them by, and says the commands', async () => {
    const options = await optionsOf('a', { listenAddress: '0.0.0.0' });
    await expect(openHost(options)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      hint: expect.stringMatching(/dwcp control.*dwcp host invite.*dwcp agent --join/) as string,
    });
    TrustFolder.make(options.trustDir);
    await (await openHost(options)).close();
  });

  it('alone on its machine makes what it needs, for its user alone', async () => {
    const options = await optionsOf('a', { listenAddress: '127.0.0.1' });
    await (await openHost(options)).close();
    for (const path of [options.trustDir, join(options.trustDir, 'control.key'), join(options.dataDir, 'host.key')])
      expect(statSync(path).mode & 0o077).toBe(0);
    expect(TrustFolder.find(options.trustDir)?.hosts()).toEqual(['a']);
  });

  it('speaks plainly where it is told to, on loopback and nowhere else', async () => {
    const options = await optionsOf('a', { listenAddress: '0.0.0.0', insecureDataPlane: true });
    await expect(openHost(options)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await (await openHost({ ...options, listenAddress: '127.0.0.1' })).close();
  });

  it('of a name that another has is not started', async () => {
    const options = await optionsOf('a', { listenAddress: '127.0.0.1' });
    await (await openHost(options)).close();
    const other = { ...options, dataDir: join(folder, 'other'), port: await freePort() };
    await expect(openHost(other)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      hint: expect.stringContaining('forget a') as string,
    });
  });

  it('takes up a new key of its own while it runs, and the old one is nobody’s', async () => {
    const host = await startHost('b', join(folder, 'b'));
    const [before] = sharedTrust().host('b')?.keys ?? [];
    rmSync(join(host.dataDir, 'host.key'));
    rmSync(join(host.dataDir, 'host.pem'));
    await until(10_000, 'a new key', () => {
      const keys = sharedTrust().host('b')?.keys ?? [];
      return keys.length === 1 && keys[0] !== before;
    });
    const peer = await connectPeer(host, 'link-1');
    await peer.ask('train');
  }, 20_000);
});

it('what a host has learnt of others stays, also after it could not be written once', async () => {
  const trust = TrustFolder.make(join(folder, 'trust'));
  const pin = Buffer.alloc(32, 7).toString('base64url');
  const path = join(folder, 'kept');
  mkdirSync(path);
  const files = await CredentialFiles.open('a', path, { tlsCert: '', tlsKey: '', tlsCa: '', tlsCrl: '' });
  const own = await PeerTrust.open(files, trust, path);
  mkdirSync(join(path, 'known-hosts.json', 'in the way'), { recursive: true });
  await expect(own.learn('b', pin)).rejects.toThrow();
  rmSync(join(path, 'known-hosts.json'), { recursive: true });
  await own.learn('b', pin);
  expect(JSON.parse(readFileSync(join(path, 'known-hosts.json'), 'utf8'))).toEqual([['b', pin]]);
});

describe('a second machine', () => {
  let invitation: Invitation;
  let control: TrustFolder;
  beforeEach(async () => {
    control = TrustFolder.make(join(folder, 'control'));
    invitation = await invite(control, ['127.0.0.1'], { address: '127.0.0.1', port: 0 });
  });
  afterEach(() => invitation.close());

  it('joins by a code, knows whose warrants count, and is known; it can sign none', async () => {
    const options = await optionsOf('far', { listenAddress: '0.0.0.0' });
    expect(await joinControlPlane(invitation.code, options)).toBe(true);
    expect(await invitation.joined).toBe('far');
    const there = TrustFolder.find(options.trustDir)!;
    expect(there.controlKeysPem()).toBe(control.controlKeysPem());
    expect([there.controlKey(), there.operatorKey()]).toEqual([undefined, undefined]);
    const host = await openHost(options);
    expect(control.host('far')?.keys).toEqual([host.security?.peers.pin]);
    await host.close();
    expect(await joinControlPlane(invitation.code, options)).toBe(false);
  });

  it('joins by a code once, and by no other', async () => {
    const [first, second] = [await optionsOf('first'), await optionsOf('second')];
    const decoded = JSON.parse(Buffer.from(invitation.code, 'base64url').toString()) as { secret: string; pin: string };
    const coded = (change: object): string =>
      Buffer.from(JSON.stringify({ ...decoded, ...change })).toString('base64url');
    await expect(joinControlPlane('nonsense', first)).rejects.toMatchObject({ code: 'INVALID_INPUT' });
    const wrong = coded({ secret: Buffer.alloc(16).toString('base64url') });
    await expect(joinControlPlane(wrong, first)).rejects.toMatchObject({ code: 'NOT_AUTHORISED' });
    const mitm = coded({ pin: Buffer.alloc(32).toString('base64url') });
    await expect(joinControlPlane(mitm, first)).rejects.toMatchObject({ code: 'PEER_UNTRUSTED' });
    expect([existsSync(first.trustDir), control.hosts()]).toEqual([false, []]);
    await joinControlPlane(invitation.code, first);
    await expect(joinControlPlane(invitation.code, second)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
    expect(control.hosts()).toEqual(['first']);
  });

  it('joins by a code once, also where two come at a time', async () => {
    const machines = [await optionsOf('first'), await optionsOf('second')];
    const came = await Promise.allSettled(machines.map((options) => joinControlPlane(invitation.code, options)));
    expect(came.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(control.hosts()).toHaveLength(1);
  });

  it('joins again by another code, with a new key and once it has been forgotten; the control plane’s own machine by none', async () => {
    const options = await optionsOf('far', { listenAddress: '0.0.0.0' });
    await joinControlPlane(invitation.code, options);
    const [before] = control.host('far')?.keys ?? [];
    for (const name of ['host.key', 'host.pem']) rmSync(join(options.dataDir, name));
    const again = await invite(control, ['127.0.0.1'], { address: '127.0.0.1', port: 0 });
    await expect(joinControlPlane(again.code, options)).rejects.toMatchObject({ code: 'NOT_AUTHORISED' });
    control.forget('far');
    expect(await joinControlPlane(again.code, options)).toBe(true);
    const [now] = control.host('far')?.keys ?? [];
    expect(now).not.toBe(before);
    expect(TrustFolder.find(options.trustDir)?.host('far')?.keys).toEqual([now]);
    await (await openHost(options)).close();
    expect(await joinControlPlane(again.code, options)).toBe(false);
    expect(await joinControlPlane(invitation.code, { ...options, trustDir: control.path })).toBe(false);
  });

  it('does not take another’s name', async () => {
    control.admit('far', { keys: [Buffer.alloc(32, 1).toString('base64url')] });
    await expect(joinControlPlane(invitation.code, await optionsOf('far'))).rejects.toMatchObject({
      code: 'NOT_AUTHORISED',
    });
  });
});
