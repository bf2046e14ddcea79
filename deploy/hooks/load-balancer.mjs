#!/usr/bin/env node
/**
 * A hook for guests behind HAProxy, by its runtime API: no new connections before the guest is paused, and again when it runs, here or there.
 * Put it into before-pause.d, after-start.d and rolled-back.d; `load-balancer.json` beside those folders says who is who:
 * {"haproxy": "192.0.2.1:9999", "vms": {"web-7": {"server": "web/web-7", "addresses": {"fra-03": "192.0.2.70"}}}}
 * (haproxy: HOST:PORT or the path of a socket; addresses: where the guest has another one on that host). Where HAProxy cannot be reached the
 * guest is not paused.
 */
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';

const { event, side, vm, host } = JSON.parse(readFileSync(0, 'utf8'));
const file = join(dirname(dirname(process.argv[1])), 'load-balancer.json');
const { haproxy = '', vms = {} } = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
const known = Object.hasOwn(vms, vm) ? vms[vm] : undefined;

function say(command) {
  const [, name, port] = /^(.*):(\d+)$/.exec(haproxy) ?? [];
  return new Promise((resolve, reject) => {
    const socket = port ? connect(Number(port), name) : connect(haproxy);
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer.trim()));
    socket.end(`${command}\n`);
  });
}

async function set(what) {
  const answer = await say(`set server ${known.server} ${what}`);
  if (/^(no such|unknown|require|invalid|permission|'?set server)/i.test(answer)) throw new Error(answer);
  console.log(`${known.server}: ${what}`);
}

try {
  if (known && event === 'before-pause') await set('state drain');
  else if (known && (event === 'after-start' || (event === 'rolled-back' && side === 'source'))) {
    const address = known.addresses?.[host];
    if (address) await set(`addr ${address}`);
    await set('state ready');
  }
} catch (error) {
  console.error(`HAProxy at ${haproxy} does not set ${known.server}: ${error.message}`);
  process.exitCode = 1;
}
