/**
 * One real Temporal server for all workflow tests: TEMPORAL_ADDRESS where it is set, else the embedded one, in memory of
 * a folder that goes with it.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type EmbeddedServer, startEmbeddedServer } from '../../src/control/embedded-server';

export interface SharedServer {
  server: EmbeddedServer | undefined;
  folder: string;
}

declare global {
  var dwcpTestServer: SharedServer | undefined;
}

export default async function serverUp(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-server-'));
  process.env.DWCP_TRUST_DIR = join(folder, 'trust');
  if (process.env.TEMPORAL_ADDRESS) {
    process.env.DWCP_TEST_TEMPORAL = process.env.TEMPORAL_ADDRESS;
    globalThis.dwcpTestServer = { server: undefined, folder };
    return;
  }
  const server = await startEmbeddedServer({ dbFile: join(folder, 'temporal.sqlite'), uiPort: -1 }, (line) =>
    process.stderr.write(`${line}\n`),
  );
  process.env.DWCP_TEST_TEMPORAL = server.address;
  process.env.DWCP_TEST_SERVER_PID = String(server.process.pid);
  globalThis.dwcpTestServer = { server, folder };
}
