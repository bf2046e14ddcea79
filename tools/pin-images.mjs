/**
 * Writes the digest of each image behind its version in deploy/images.env, as Docker learns it from the registry:
 * `node tools/pin-images.mjs [--check]`. With --check it only says what is not pinned, or has another digest by now, and ends with 1.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const path =
  process.env.DWCP_IMAGES_FILE ?? join(dirname(dirname(fileURLToPath(import.meta.url))), 'deploy', 'images.env');
const LINE = /^([A-Z_]+)=([a-z0-9./-]+:[\w.-]+)(@sha256:[0-9a-f]{64})?$/;

/** Of the index, where there is one for several processors. */
function digestOf(image) {
  const words = ['buildx', 'imagetools', 'inspect', image, '--format', '{{.Manifest.Digest}}'];
  const digest = execFileSync('docker', words, { encoding: 'utf8', timeout: 120_000 }).trim();
  if (!/^sha256:[0-9a-f]{64}$/.test(digest)) throw new Error(`docker says of ${image}: ${digest.slice(0, 200)}`);
  return digest;
}

const check = process.argv.includes('--check');
const lines = readFileSync(path, 'utf8')
  .split('\n')
  .map((line) => {
    if (line === '' || line.startsWith('#')) return line;
    const [, name, image, known] = LINE.exec(line) ?? [];
    if (name === undefined) throw new Error(`${path}: ${line}`);
    const pinned = `${name}=${image}@${digestOf(image)}`;
    if (pinned !== line) {
      process.stdout.write(`${image}: ${known?.slice(1) ?? 'not pinned'}, now ${pinned.split('@')[1]}\n`);
      if (check) process.exitCode = 1;
    }
    return pinned;
  });
if (!check) writeFileSync(path, lines.join('\n'));
