#!/usr/bin/env node
/**
 * A hook for the networks of moving guests: neighbour and forwarding entries on the bridge that a guest is on, which an EVPN fabric (FRR) tells
 * the other hosts, and connections that the kernel tracks of it. QEMU itself announces the guest's MAC addresses on its ports.
 * Put it into after-start.d, released.d and rolled-back.d; which addresses a MAC address has, `addresses.json` beside those folders
 * says: {"52:54:00:12:34:56": ["192.0.2.7"]}. What is not installed here (ip, bridge, conntrack) is left out.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const told = JSON.parse(readFileSync(0, 'utf8'));
const { event, side, networks = [] } = told;
const file = join(dirname(dirname(process.argv[1])), 'addresses.json');
const addresses = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
// Where the guest is from now on; on the other host its entries go.
const isHere = side === 'destination' ? event === 'after-start' : event === 'rolled-back';

function run(program, ...args) {
  const { error, status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (error?.code === 'ENOENT') return;
  // What was not there need not go.
  const isFailure =
    status !== 0 && (isHere || !/No such|cannot find|0 flow entries/i.test(stderr)) && program !== 'conntrack';
  console.log(`${program} ${args.join(' ')}: ${isFailure ? stderr.trim() : 'done'}`);
  if (isFailure) process.exitCode = 1;
}

function bridgeOf(port) {
  const { stdout } = spawnSync('ip', ['-o', 'link', 'show', 'dev', port], { encoding: 'utf8' });
  return / master (\S+)/.exec(stdout ?? '')?.[1];
}

for (const { mac, interface: port, bridge = port && bridgeOf(port) } of networks) {
  if (!mac || !bridge) continue;
  if (port && isHere) run('bridge', 'fdb', 'replace', mac, 'dev', port, 'master', 'dynamic');
  for (const address of addresses[mac] ?? []) {
    if (isHere) run('ip', 'neigh', 'replace', address, 'lladdr', mac, 'dev', bridge, 'nud', 'reachable');
    else run('ip', 'neigh', 'del', address, 'dev', bridge);
    // What was tracked of it by this host is of another path.
    for (const way of ['--orig-src', '--orig-dst']) run('conntrack', '-D', way, address);
  }
}
