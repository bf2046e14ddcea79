/**
 * A baseline serves a source that proves to know it, and no other: not one that has its root, its VM's uuid and tenant, and a grant.
 * What is asked here goes over the wire as a peer's own program would ask it.
 */
import { copyFileSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { quickHash } from '../../src/encoder/hash';
import { baselinePathOf, workPathOf } from '../../src/store/baselines';
import { proofOf } from '../../src/sync/protocol';
import { StandardChannel } from '../../src/sync/source/standard-channel';
import { changeImage, kindOf, randomBlock, sha256 } from '../helpers/data';
import { BLOCK, diskLab, type Lab, onB, SIZE } from '../helpers/disk-lab';
import { startHost } from '../helpers/hosts';
import { type Move, moveVm, prepareMove, sendImage } from '../helpers/moves';
import { connectPeer, type Peer } from '../helpers/peer';

interface Seat extends Lab {
  /** From a host that says it has the same VM, with another disk in it. */
  readonly move: Move;
  readonly root: string;
  readonly baseline: string;
}

/** `a` keeps the baseline of a VM that is at `b` now; `c` has the same name, uuid and tenant, and knows the root. */
async function seat(): Promise<Seat> {
  const here = await diskLab();
  const { a, b, disk, folder } = here;
  await a.registry.put({ ...(await a.registry.get('vm')), tenant: 'acme' });
  await moveVm('m1', 'vm', a, b);
  const c = await startHost('c', join(folder, 'c'));
  const path = join(folder, 'c', 'disk.img');
  copyFileSync(onB(here), path);
  const file = openSync(path, 'r+');
  for (let at = 0; at < SIZE - BLOCK; at += BLOCK) writeSync(file, randomBlock(77, at), 0, BLOCK, at);
  const { uuid } = await b.registry.get('vm');
  await c.registry.put({
    vmId: 'vm',
    images: [{ imageId: 'vda', kind: 'disk', path }],
    presence: 'here',
    generation: 1,
    tenant: 'acme',
    ...(uuid !== undefined && { uuid }),
  });
  const move = await prepareMove('m2', 'vm', c, a);
  const root = (await b.store.open('vm', 'vda'))!.record.root;
  return { ...here, move, root, baseline: sha256(baselinePathOf(disk)) };
}

const ask = (peer: Peer): Promise<Readonly<Record<string, unknown>>> =>
  peer.ask('open_image', { imageId: 'vda', useBaseline: true });

interface Prove {
  readonly nonce: string;
  readonly blocks: readonly number[];
}

describe('a source that knows the root and not the content', () => {
  it('is told nothing, and brings no image', async () => {
    const here = await seat();
    const peer = await connectPeer(here.a, 'm2', { sourceHost: 'c' });
    const body = await ask(peer);
    expect(body.root).toBeUndefined();
    expect(JSON.stringify(body)).not.toContain(here.root);
    await expect(peer.ask('manifest', { image: 0, first: 0, count: 4 })).rejects.toMatchObject({
      code: 'PROTOCOL_VIOLATION',
    });
    await expect(peer.ask('page_hashes', { image: 0 }, Buffer.alloc(4))).rejects.toMatchObject({
      code: 'PROTOCOL_VIOLATION',
    });
    await expect(peer.ask('finish_image', { image: 0, root: here.root })).rejects.toMatchObject({
      code: 'PROTOCOL_VIOLATION',
    });
    await expect(peer.ask('take_over', { vmId: 'vm', roots: { vda: here.root } })).rejects.toMatchObject({
      code: 'INTEGRITY_MISMATCH',
    });
    expect(await here.a.registry.find('vm')).toMatchObject({ presence: 'away' });
  });

  it('that guesses is refused, the baseline lies where it lay, and its image begins empty', async () => {
    const here = await seat();
    const peer = await connectPeer(here.a, 'm2', { sourceHost: 'c' });
    let body = await ask(peer);
    for (let guesses = 0; body.prove !== undefined; guesses += 1) {
      expect(guesses).toBeLessThan(10);
      const { blocks } = body.prove as Prove;
      body = await peer.ask('open_image', { imageId: 'vda', useBaseline: true }, Buffer.alloc(16 * blocks.length, 1));
    }
    expect(body).toMatchObject({ state: 'empty', zero: true });
    expect(sha256(baselinePathOf(here.disk))).toBe(here.baseline);
    await expect(peer.ask('finish_image', { image: 0, root: here.root })).rejects.toMatchObject({
      code: 'INTEGRITY_MISMATCH',
    });
    const sent = await sendImage(here.move, 'vda');
    expect([sent.began, sent.linkBytes > SIZE / 10]).toEqual(['empty', true]);
  });

  it('gets nothing out of an image that was opened ahead, by this agent or an earlier one', async () => {
    const here = await seat();
    await (await here.a.hub.incoming.get('m2')).images.image('vda', 'baseline');
    expect(existsSync(workPathOf(here.disk))).toBe(true);
    expect(await ask(await connectPeer(here.a, 'm2', { sourceHost: 'c' }))).toHaveProperty('prove');
    await here.a.close();
    const a = await startHost('a', here.a.dataDir);
    const peer = await connectPeer(a, 'm2', { sourceHost: 'c' });
    expect(await ask(peer)).toHaveProperty('prove');
    expect(await peer.ask('open_image', { imageId: 'vda', useBaseline: false })).toMatchObject({ state: 'empty' });
    expect(sha256(baselinePathOf(here.disk))).toBe(here.baseline);
  });

  it('cannot have it finished by the standard transfer', async () => {
    const here = await seat();
    await (await here.a.hub.incoming.get('m2')).images.image('vda', 'baseline');
    const { sources } = here.move.source;
    const migration = sources.open('m2', here.a.destinationFor('m2', here.move.source.hostId), {
      bandwidthLimit: 0,
      priority: 5,
    });
    const channel = await StandardChannel.open(migration, () => undefined);
    await channel.ask({ method: 'begin', imageId: 'vda' });
    await expect(channel.ask({ method: 'finish', root: here.root })).rejects.toMatchObject({
      code: 'INTEGRITY_MISMATCH',
    });
    expect(sha256(baselinePathOf(here.disk))).toBe(here.baseline);
  });

  it('cannot answer for another session', async () => {
    const here = await seat();
    const { manifest } = (await here.b.store.open('vm', 'vda'))!;
    const answerTo = ({ nonce, blocks }: Prove): Buffer =>
      proofOf(Buffer.from(nonce, 'hex'), blocks, Buffer.concat(blocks.map((block) => manifest.hashOf(block))));
    const first = await connectPeer(here.a, 'm2', { sourceHost: 'c' });
    const overheard = answerTo((await ask(first)).prove as Prove);
    const second = await connectPeer(here.a, 'm2', { sourceHost: 'c' });
    const body = await second.ask('open_image', { imageId: 'vda', useBaseline: true }, overheard);
    expect(body).toHaveProperty('prove');
    // The same knowledge, and a challenge of its own: this one is a source as any other.
    const proof = answerTo(body.prove as Prove);
    expect(await second.ask('open_image', { imageId: 'vda', useBaseline: true }, proof)).toMatchObject({
      state: 'baseline',
      root: here.root,
    });
  });
});

describe('a source that has had the content', () => {
  it('proves it by what its image is now, where it has no hashes of then', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    await here.b.store.forget('vm', 'vda');
    changeImage(onB(here), SIZE, 3);
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect(back!.began).toBe('baseline');
    expect(sha256(here.disk)).toBe(sha256(baselinePathOf(onB(here))));
  });

  it('and of which less than half is left sends all of it', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    await here.b.store.forget('vm', 'vda');
    const file = openSync(onB(here), 'r+');
    for (let at = 0; at < SIZE - BLOCK; at += BLOCK)
      if (at % (8 * BLOCK) !== 0) writeSync(file, randomBlock(78, at), 0, BLOCK, at);
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect([back!.began, back!.counts.refusedBlocks]).toEqual(['empty', 0]);
    expect(sha256(here.disk)).toBe(sha256(baselinePathOf(onB(here))));
  });
});

it('page hashes of the same content are others for each migration, and none that a host keeps', async () => {
  const here = await diskLab();
  const { a, b } = here;
  await moveVm('m1', 'vm', a, b);
  changeImage(onB(here), SIZE, 3);
  const told: Buffer[] = [];
  const block = Array.from({ length: 100 }, (_, index) => index).find((index) => kindOf(1, index) === 'random')!;
  const asked = Buffer.alloc(4);
  asked.writeUInt32BE(block);
  const page = readFileSync(baselinePathOf(here.disk)).subarray(block * BLOCK, block * BLOCK + 4096);
  for (const id of ['m2', 'm3']) {
    const move = await prepareMove(id, 'vm', b, a);
    const sources = b.sources.open(id, a.destinationFor(id, b.hostId), { bandwidthLimit: 0, priority: 5 });
    const { control } = await sources.session();
    await sendImage(move, 'vda');
    told.push((await control.request('page_hashes', { image: 0 }, asked)).payload.subarray(0, 128));
    await b.sourceOwnership.rollBack('vm', id);
    await a.hub.abandon(id, 'vm', move.fence);
  }
  expect(told[0]!.length).toBe(128);
  expect(told[0]!.equals(told[1]!)).toBe(false);
  expect(told.some((hashes) => hashes.includes(quickHash(page)))).toBe(false);
});
