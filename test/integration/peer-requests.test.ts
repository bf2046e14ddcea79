/** What a peer with a grant may make a destination do, and what not: everything else is refused with a code, and nothing has happened. */
import { join } from 'node:path';
import { temporaryFolder } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { connectPeer } from '../helpers/peer';

let folder: string;
let host: TestHost;

beforeEach(async () => {
  folder = temporaryFolder();
  host = await startHost('b', join(folder, 'b'));
});

const refused = { code: 'PROTOCOL_VIOLATION' };

test.each(['constructor', 'toString', 'hasOwnProperty', '__defineGetter__', '__lookupGetter__', 'valueOf'])(
  'a request %s is unknown, as any other that no table names',
  async (method) => {
    await host.hub.incoming.prepare({
      migrationId: 'm',
      vmId: 'vm',
      mode: 'warm',
      fence: 0,
      generation: 0,
      sourceHost: 'a',
      workflowId: 'w',
      images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 65_536, path: join(folder, 'vda.img') }],
    });
    const peer = await connectPeer(host, 'm');
    await expect(peer.ask(method)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('Unknown request') as string,
    });
  },
);
