/**
 * QEMU for guests that run here: found, or installed from Debian's backports where this runs as root. Versions before 10
 * lose pages under TCG by themselves (docs/architecture.md, decisions), so here they do not count.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../model/errors';
import { whichTool } from './tools';

const QEMU = 'qemu-system-x86_64';
const OLDEST = 10;
const BACKPORTS = '/etc/apt/sources.list.d/dwcp-backports.sources';
const PACKAGES = ['qemu-system-x86', 'qemu-utils'];

export const QEMU_INSTALL_LINE = `apt-get install -y -t bookworm-backports ${PACKAGES.join(' ')}`;

export function hasQemu(): boolean {
  if (!whichTool(QEMU)) return false;
  return Number(/version (\d+)/.exec(execFileSync(QEMU, ['--version'], { encoding: 'utf8' }))?.[1] ?? 0) >= OLDEST;
}

/** Installs it where that can be done. @returns whether it is there now */
export function ensureQemu(say: (line: string) => void): boolean {
  if (hasQemu()) return true;
  if (process.getuid?.() !== 0 || !whichTool('apt-get')) return false;
  say(`QEMU ${OLDEST} or newer is missing; installing it from Debian’s backports`);
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const sources = '/etc/apt/sources.list.d/debian.sources';
    // The mirror is the machine's own.
    const mirror = existsSync(sources)
      ? /^URIs:\s*(\S+)/m.exec(readFileSync(sources, 'utf8'))?.[1]
      : /^deb\s+(?:\[[^\]]*\]\s+)?(\S+)/m.exec(readFileSync('/etc/apt/sources.list', 'utf8'))?.[1];
    if (mirror === undefined) throw new Error('the mirror of this Debian cannot be found in its apt sources');
    writeFileSync(
      BACKPORTS,
      `Types: deb\nURIs: ${mirror}\nSuites: bookworm-backports\nComponents: main\nSigned-By: ` +
        '/usr/share/keyrings/debian-archive-keyring.gpg\n',
    );
    execFileSync('apt-get', ['update'], { stdio: 'ignore', env });
    execFileSync('apt-get', ['install', '-y', '--no-install-recommends', '-t', 'bookworm-backports', ...PACKAGES], {
      stdio: 'ignore',
      env,
    });
  } catch (error) {
    say(`QEMU could not be installed: ${messageOf(error)}`);
  }
  return hasQemu();
}
