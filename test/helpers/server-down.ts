/** Ends what server-up.ts has started. */
import { rmSync } from 'node:fs';

export default async function serverDown(): Promise<void> {
  await globalThis.dwcpTestServer?.server?.stop();
  rmSync(globalThis.dwcpTestServer?.folder ?? '', { recursive: true, force: true });
}
