/** The NBD client against QEMU's own server: bytes, holes and errors of raw and qcow2 disks. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NbdClient } from '../../src/hypervisor/nbd-client';
import { temporaryFolder } from '../helpers/data';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const MIB = 1024 * 1024;

describeWhere([needsQemu()])('the NBD client', () => {
  const servers: ChildProcess[] = [];
  afterEach(() => {
    for (const server of servers.splice(0)) server.kill('SIGKILL');
  });

  async function serve(format: 'raw' | 'qcow2'): Promise<{ path: string; content: Buffer }> {
    const folder = temporaryFolder();
    const content = Buffer.concat([randomBytes(MIB), Buffer.alloc(2 * MIB), randomBytes(MIB + 512)]);
    const [raw, image, path] = [join(folder, 'raw'), join(folder, 'image'), join(folder, 'nbd')];
    writeFileSync(raw, content);
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', format, '-S', '4k', raw, image]);
    servers.push(spawn('qemu-nbd', ['-r', '-f', format, '-k', path, '-x', 'disk', '-t', image], { stdio: 'ignore' }));
    for (const deadline = Date.now() + 10_000; !existsSync(path) && Date.now() < deadline; )
      await new Promise((resolve) => setTimeout(resolve, 20));
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { path, content };
  }

  test.each(['raw', 'qcow2'] as const)(
    'reads what a %s disk holds, in any pieces at once, and where its holes are',
    async (format) => {
      const { path, content } = await serve(format);
      const client = await NbdClient.connect(path, 'disk', 'base:allocation');
      expect(client.sizeBytes).toBe(content.length);
      const whole = Buffer.alloc(content.length, 1);
      const pieces = Array.from({ length: Math.ceil(content.length / 100_000) }, (_, index) => index * 100_000);
      await Promise.all(
        pieces.map((at) => client.read(at, whole.subarray(at, Math.min(content.length, at + 100_000)))),
      );
      expect(whole.equals(content)).toBe(true);
      const holes = (await client.extents()).filter(({ flags }) => flags !== 0);
      expect(holes.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(2 * MIB - 131_072);
      for (const { offset, length } of holes)
        expect(content.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
      client.close();
    },
  );

  test('says what the server refuses: an export that is not there, a read behind the end, a connection that is gone', async () => {
    const { path, content } = await serve('raw');
    await expect(NbdClient.connect(path, 'other')).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    await expect(NbdClient.connect(path, 'disk', 'qemu:dirty-bitmap:none')).rejects.toMatchObject({
      code: 'IMAGE_UNREADABLE',
    });
    const client = await NbdClient.connect(path, 'disk');
    await expect(client.read(content.length, Buffer.alloc(4096))).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    servers[0]?.kill('SIGKILL');
    await expect(
      (async () => {
        for (;;) await client.read(0, Buffer.alloc(4096));
      })(),
    ).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
  });
});
