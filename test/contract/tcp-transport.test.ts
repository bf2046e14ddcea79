/** The transport over plain TCP, and over TLS 1.3 with both sides proven, under the transport contract. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TlsFiles } from '../../src/transport/endpoint';
import { temporaryFolder } from '../helpers/data';
import { transportSuite } from './transport.suite';
import { openLab } from './transport-lab';

const folder = temporaryFolder();
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** A certificate authority and a certificate signed by it, made by openssl as an operator would. */
function makeCertificates(name: string): TlsFiles {
  const at = (file: string): string => join(folder, `${name}-${file}`);
  const openssl = (...args: string[]): unknown => execFileSync('openssl', args, { stdio: 'ignore' });
  const authority = ['-subj', `/CN=${name} test CA`, '-keyout', at('ca.key'), '-out', at('ca.pem')];
  openssl('req', '-x509', ...NEW_KEY, '-days', '1', ...authority);
  openssl('req', ...NEW_KEY, '-subj', '/CN=agent', '-keyout', at('agent.key'), '-out', at('agent.csr'));
  const signing = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '1'];
  openssl('x509', '-req', '-in', at('agent.csr'), ...signing, '-out', at('agent.pem'));
  return { cert: readFileSync(at('agent.pem')), key: readFileSync(at('agent.key')), ca: readFileSync(at('ca.pem')) };
}

const ours = makeCertificates('ours');

transportSuite('TCP');
transportSuite('TLS 1.3', () => ours);

it('TLS: refuses a peer whose certificate another authority has signed', async () => {
  const lab = await openLab(ours);
  const stranger = await openLab(makeCertificates('theirs'));
  const dial = stranger.pool.connect(
    { address: '127.0.0.1', port: lab.port },
    {
      role: 'control',
      stream: 0,
      sessionId: 's1',
      epoch: 1,
      sourceHost: 'a',
      grant: { purpose: 'session', subject: 's1', expiresAtMs: 1, token: 'x' },
    },
  );
  await expect(dial).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' });
  await lab.close();
  await stranger.close();
});
