/** The daemon that both benches with rsync among their peers send to: a folder of arrivals as the module `in`, on port 8730. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Makes its folder and its configuration.
 * @param settings further lines of the configuration @returns where files arrive, the command that serves them, and where a client sends
 */
export function rsyncDaemon(
  folder: string,
  address: string,
  settings: string,
): { readonly arrivals: string; readonly command: string[]; readonly target: string } {
  const arrivals = join(folder, 'rsync');
  mkdirSync(arrivals, { recursive: true });
  const config = join(folder, 'rsyncd.conf');
  writeFileSync(
    config,
    `use chroot = no\nuid = root\ngid = root\n${settings}\n[in]\npath = ${arrivals}\nread only = no\n`,
  );
  const command = ['rsync', '--daemon', '--no-detach', '--config', config, '--port', '8730', '--address', address];
  return { arrivals, command, target: `rsync://${address}:8730/in/image` };
}
