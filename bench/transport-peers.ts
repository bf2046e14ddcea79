/**
 * The peers of the transport's benches: iperf3, one Node stream, rsync, rclone. Installed where they can be.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Children } from '../src/cli/demo/children';
import { findTool } from '../src/cli/demo/tools';
import { type Mover, on, pair } from './movers';
import { say } from './report';
import { rsyncDaemon } from './rsync-daemon';

/** Connections that rclone takes where nobody says how many. */
const RCLONE_DEFAULT = 4;

export function iperf3(streams: number): Mover {
  return {
    name: `iperf3 x${streams}`,
    start: ({ children, link }, seconds) =>
      pair(
        () => on(children, link.b, ['iperf3', '-s', '-1', '-B', link.b.address]),
        () => on(children, link.a, ['iperf3', '-c', link.b.address, '-t', String(seconds), '-P', String(streams)]),
        seconds + 5,
      ),
  };
}

const NODE_RECEIVER = `require('net').createServer((s) => s.resume().on('error', () => {})).listen(8740, process.argv[1])`;
const NODE_SENDER =
  `const s = require('net').connect(8740, process.argv[1]); const b = Buffer.alloc(65536, 7); const go = () => { ` +
  `while (s.write(b)); }; s.on('connect', go).on('drain', go).on('error', () => process.exit())`;

export const nodeTcp: Mover = {
  name: 'node tcp x1',
  start: ({ children, link }, seconds) =>
    pair(
      () => on(children, link.b, [process.execPath, '-e', NODE_RECEIVER, link.b.address]),
      () => on(children, link.a, [process.execPath, '-e', NODE_SENDER, link.b.address]),
      seconds,
    ),
};

export const rsync: Mover = {
  name: 'rsync',
  start: ({ children, link, folder, image }, seconds) => {
    rmSync(join(folder, 'rsync'), { recursive: true, force: true });
    // The daemon's child for a connection outlives it, and would keep its file for as long as a link that is gone is silent.
    const { command, target } = rsyncDaemon(folder, link.b.address, 'timeout = 10');
    return pair(
      () => on(children, link.b, command),
      () => on(children, link.a, ['rsync', '--inplace', '--whole-file', image, target]),
      seconds,
    );
  },
};

/** rclone takes a file in pieces over as many connections as it is told; served by rclone itself. */
export function rclone(streams: number): Mover {
  return {
    name: `rclone x${streams}`,
    start: ({ children, link, folder, image }, seconds) => {
      const arrivals = join(folder, 'rclone');
      rmSync(arrivals, { recursive: true, force: true });
      mkdirSync(arrivals, { recursive: true });
      const [dir, file] = [image.slice(0, image.lastIndexOf('/')), image.slice(image.lastIndexOf('/') + 1)];
      return pair(
        () =>
          on(children, link.a, [
            'rclone',
            'serve',
            'http',
            dir,
            '--addr',
            `${link.a.address}:8750`,
            '--config',
            '/dev/null',
            '--quiet',
          ]),
        () =>
          on(children, link.b, [
            'rclone',
            'copyto',
            `:http:${file}`,
            join(arrivals, 'image'),
            '--http-url',
            `http://${link.a.address}:8750`,
            '--multi-thread-streams',
            String(streams),
            '--multi-thread-cutoff',
            '1M',
            '--config',
            '/dev/null',
            '--quiet',
          ]),
        seconds,
      );
    },
  };
}

/** The peers, installed where they can be; one that cannot is said, and left out. */
export async function peersFor(streams: number, children: Children): Promise<Mover[]> {
  const movers: Mover[] = [nodeTcp];
  if (await findTool('iperf3', 'iperf3', children, say)) movers.push(iperf3(1), iperf3(streams));
  if (await findTool('rsync', 'rsync', children, say)) movers.push(rsync);
  if (await findTool('rclone', 'rclone', children, say)) movers.push(rclone(RCLONE_DEFAULT), rclone(streams));
  return movers;
}
