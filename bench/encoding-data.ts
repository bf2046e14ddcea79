/** What `bench -- encoding` makes besides guests: logs, zeros, numbers, and two versions of an image. Seeded: the same on every machine. */
import { closeSync, copyFileSync, openSync, readSync, writeSync } from 'node:fs';
import { PAGE_SIZE_BYTES as PAGE_BYTES } from '../src/model/image';
import { KIB, MIB } from '../src/model/units';

/** xorshift32: uniform in [0, 1). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}

function writeParts(path: string, sizeBytes: number, part: (at: number) => Buffer): void {
  const fd = openSync(path, 'w');
  for (let at = 0; at < sizeBytes; ) {
    const bytes = part(at);
    at += writeSync(fd, bytes, 0, Math.min(bytes.length, sizeBytes - at));
  }
  closeSync(fd);
}

/** Zeros that are written, no holes. */
export function writeZeros(path: string, sizeBytes: number): void {
  writeParts(path, sizeBytes, () => Buffer.alloc(16 * MIB));
}

/** A web server's access log: some thousand clients, a few hundred pages of unequal popularity, sizes, referrers, agents. */
export function writeLogs(path: string, sizeBytes: number): void {
  const random = randomFrom(11);
  const pick = (count: number): number => Math.floor(count * random() ** 3);
  const agents = [
    'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36',
    'curl/8.5.0',
    'kube-probe/1.29',
    'Prometheus/2.51.2',
  ];
  const clients = Array.from(
    { length: 4000 },
    () => `10.${Math.floor(256 * random())}.${Math.floor(256 * random())}.${Math.floor(256 * random())}`,
  );
  let second = 0;
  writeParts(path, sizeBytes, () => {
    const lines: string[] = [];
    for (let line = 0; line < 5000; line += 1) {
      if (random() < 0.05) second += 1;
      const at = new Date(1_764_000_000_000 + second * 1000).toISOString();
      const page = pick(600);
      lines.push(
        `${clients[pick(clients.length)] ?? ''} - - [${at}] "GET /articles/${page}.html HTTP/1.1" ` +
          `${random() < 0.97 ? 200 : 404} ${1000 + page * 37 + Math.floor(100 * random())} "https://www.example.org/list/` +
          `${pick(40)}" "${agents[pick(agents.length)] ?? ''}" ${(random() * 0.2).toFixed(3)}`,
      );
    }
    return Buffer.from(`${lines.join('\n')}\n`);
  });
}

/** Normally distributed numbers: float32, or the upper halves of them, which are bfloat16. */
export function writeNumbers(path: string, sizeBytes: number, width: 2 | 4): void {
  const random = randomFrom(23);
  writeParts(path, sizeBytes, () => {
    const numbers = Float32Array.from(
      { length: MIB },
      () => 0.02 * Math.sqrt(-2 * Math.log(random() + 2 ** -32)) * Math.cos(2 * Math.PI * random()),
    );
    if (width === 4) return Buffer.from(numbers.buffer);
    const words = new Uint32Array(numbers.buffer);
    return Buffer.from(Uint16Array.from(words, (word) => word >>> 16).buffer);
  });
}

/** A tenth of the bytes are others: runs of 4 to 64 KiB of noise, at any position. */
export function changeAnywhere(from: string, to: string, sizeBytes: number): void {
  changed(from, to, (fd, random) => {
    for (let left = sizeBytes / 10; left > 0; ) {
      const run = Buffer.from(Uint8Array.from({ length: Math.floor((4 + 60 * random()) * KIB) }, () => 256 * random()));
      writeSync(fd, run, 0, run.length, Math.floor(random() * (sizeBytes - run.length)));
      left -= run.length;
    }
  });
}

/** A tenth of the pages has one to four edits of 16 to 512 bytes. */
export function changeInPlace(from: string, to: string, sizeBytes: number): void {
  changed(from, to, (fd, random) => {
    for (let page = 0; page < sizeBytes / PAGE_BYTES; page += 1) {
      if (random() >= 0.1) continue;
      for (let edits = 1 + Math.floor(4 * random()); edits > 0; edits -= 1) {
        const run = Buffer.from(Uint8Array.from({ length: 16 + Math.floor(496 * random()) }, () => 256 * random()));
        writeSync(fd, run, 0, run.length, page * PAGE_BYTES + Math.floor(random() * (PAGE_BYTES - run.length)));
      }
    }
  });
}

function changed(from: string, to: string, change: (fd: number, random: () => number) => void): void {
  copyFileSync(from, to);
  const fd = openSync(to, 'r+');
  change(fd, randomFrom(37));
  closeSync(fd);
}

/** The pages of a memory image that are not zeros, one behind the other, as far as they go. */
export function writeUsedPages(memory: string, to: string, sizeBytes: number): void {
  const fd = openSync(memory, 'r');
  let at = 0;
  const zero = Buffer.alloc(PAGE_BYTES);
  writeParts(to, sizeBytes, () => {
    const page = Buffer.alloc(PAGE_BYTES);
    while (readSync(fd, page, 0, PAGE_BYTES, at) === PAGE_BYTES) {
      at += PAGE_BYTES;
      if (!page.equals(zero)) return page;
    }
    throw new Error(`${memory} has fewer than ${sizeBytes} bytes that are not zeros`);
  });
  closeSync(fd);
}
