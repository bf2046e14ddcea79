/**
 * A destination for the fuzzer: all of a host but Temporal, on a data folder of its own, with a hub whose guests are no QEMU's. Made anew
 * after some hundred sessions, since what each leaves stays where a real host keeps it.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type HostParts, openHost } from '../src/agent/host';
import type { VmActivator } from '../src/hypervisor/contract';
import { DwcpError } from '../src/model/errors';
import { PROCESS_OPTIONS, withDefaults } from '../src/model/options';
import { MIB } from '../src/model/units';
import { Bookkeeping } from '../src/sync/destination/bookkeeping';
import { DestinationHub } from '../src/sync/destination-hub';
import { DataPlaneListener } from '../src/transport/endpoint';
import { Slab } from '../src/transport/slab';
import { pinOfCertificate } from '../src/trust/host-certificate';
import { FakeReceiver } from '../test/helpers/fake-receiver';
import { AGENT_KEY } from './fuzz-hello';

const IDLE_MS = 60_000;
const WITHIN = { bufferMemory: 16 * MIB, bookkeepingMemory: 64 * MIB, workerThreads: 1 };

/** What is durable here is so for no longer than an input: in memory, where there is a file system that is. */
const BASE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

function refuse(): DwcpError {
  return new DwcpError('QEMU_REFUSED', 'The fuzzer starts no guest', { side: 'destination' });
}

class NoGuest extends FakeReceiver {
  override receiveWhole(): Promise<never> {
    return Promise.reject(refuse());
  }

  override loadWhole(): Promise<never> {
    return Promise.reject(refuse());
  }
}

/** Guests that run nowhere. */
const ACTIVATOR: VmActivator = {
  activate: () => Promise.reject(refuse()),
  receiveGuest: (_vmId, _command, ramBlocks) => new NoGuest(ramBlocks, ''),
};

export interface FuzzHost {
  readonly parts: HostParts;
  readonly hub: DestinationHub;
  /** Takes connections in as the real one does, but listens nowhere. */
  readonly listener: DataPlaneListener;
  readonly port: number;
  /** From now on this certificate is that host's. */
  admit(hostId: string, cert: string | Buffer): void;
  close(): Promise<void>;
}

export async function openFuzzHost(): Promise<FuzzHost> {
  const folder = mkdtempSync(join(BASE, 'dwcp-fuzz-host-'));
  const parts = await openHost(
    withDefaults(PROCESS_OPTIONS, {
      ...{
        hostId: 'b',
        dataDir: join(folder, 'b'),
        trustDir: join(folder, 'trust'),
        listenAddress: '127.0.0.1',
        port: 0,
      },
      ...WITHIN,
    }),
  );
  const { dataDir, store, bases, ownership, registry, source } = parts;
  const hub: DestinationHub = new DestinationHub(
    {
      ...{ hostId: 'b', key: AGENT_KEY, acceptDwcp: true, slab: new Slab(WITHIN.bufferMemory) },
      giveBack: (connection) => listener.awaitHello(connection, IDLE_MS),
    },
    {
      ...{ dataDir, store, bases, ownership, registry, pool: source.pool, dictionaries: source.dictionaries },
      bookkeeping: new Bookkeeping(WITHIN.bookkeepingMemory),
      activator: ACTIVATOR,
    },
  );
  const listener: DataPlaneListener = new DataPlaneListener((hello, connection) => hub.admit(hello, connection));
  return {
    ...{ parts, hub, listener, port: parts.advertised.port },
    admit: (hostId, cert) => parts.security?.folder.admit(hostId, { keys: [pinOfCertificate(cert)] }),
    close: async () => {
      await hub.close();
      await parts.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
