/**
 * The peers on the same link: rsync -z to a daemon, and zstd through one TCP connection. Each makes the same file on
 * the other host, and is checked like everything else.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Children } from '../src/cli/demo/children';
import { wait } from '../src/system/wait';
import { rsyncDaemon } from './rsync-daemon';
import type { WanLink } from './wan-link';

const READY_MS = 700;

function finished(command: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], { stdio: ['ignore', 'ignore', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${command} ended with ${code ?? 'a signal'}`)),
    );
  });
}

/** @returns where the file arrives */
export async function rsyncOver(
  link: WanLink,
  children: Children,
  folder: string,
  source: string,
): Promise<{ seconds: number; path: string }> {
  const served = rsyncDaemon(folder, link.b.address, `pid file = ${join(folder, 'rsyncd.pid')}`);
  const [command = 'ip', ...prefix] = link.b.prefix;
  const daemon = children.start('rsyncd', command, [...prefix, ...served.command]);
  await wait(READY_MS);
  const startedAt = performance.now();
  const [client = 'ip', ...clientPrefix] = link.a.prefix;
  await finished(client, [...clientPrefix, 'rsync', '-z', '--sparse', source, served.target]);
  const seconds = (performance.now() - startedAt) / 1000;
  daemon.process.kill('SIGTERM');
  await daemon.ended;
  return { seconds, path: join(served.arrivals, 'image') };
}

/** `zstd -3` into one TCP connection, unpacked as it arrives. */
export async function zstdOver(
  link: WanLink,
  children: Children,
  folder: string,
  source: string,
): Promise<{ seconds: number; path: string }> {
  const path = join(folder, 'zstd-image');
  const [command = 'ip', ...prefix] = link.b.prefix;
  const program = [
    "const s=require('net').createServer(c=>{",
    `const z=require('child_process').spawn('zstd',['-d','-q','-f','--sparse','-o',${JSON.stringify(path)}],`,
    "{stdio:['pipe','inherit','inherit']});c.pipe(z.stdin);",
    "z.on('close',code=>{c.end('done');s.close();process.exitCode=code;});",
    `}).listen(8731,${JSON.stringify(link.b.address)})`,
  ].join('');
  const receiver = children.start('zstd-receiver', command, [...prefix, process.execPath, '-e', program]);
  await wait(READY_MS);
  const startedAt = performance.now();
  const [client = 'ip', ...clientPrefix] = link.a.prefix;
  const sender = [
    `const c=require('net').connect({port:8731,host:${JSON.stringify(link.b.address)},allowHalfOpen:true});`,
    `const z=require('child_process').spawn('zstd',['-3','-q','-c',${JSON.stringify(source)}],`,
    "{stdio:['ignore','pipe','inherit']});z.stdout.pipe(c);c.resume();c.on('end',()=>c.destroy());",
  ].join('');
  await finished(client, [...clientPrefix, process.execPath, '-e', sender]);
  await receiver.ended;
  return { seconds: (performance.now() - startedAt) / 1000, path };
}
