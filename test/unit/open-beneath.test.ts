/** Images are opened below their roots: no link leads out, and nothing is waited for that is no file. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { VmRegistry } from '../../src/store/vm-registry';
import * as libc from '../../src/system/libc';
import { liesBelow, openBeneath, openBeneathSync } from '../../src/system/open-beneath';
import { temporaryFolder } from '../helpers/data';

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
let [folder, root] = ['', ''];

beforeEach(() => {
  folder = temporaryFolder();
  root = join(folder, 'root');
  mkdirSync(join(root, 'vm'), { recursive: true });
  writeFileSync(join(root, 'vm', 'disk'), 'the disk');
  writeFileSync(join(folder, 'secret'), 'a secret');
  mkdirSync(join(folder, 'out'));
});

const at = (name: string): string => join(root, 'vm', name);

async function readAt(name: string, opens = openBeneath): Promise<string> {
  const handle = await opens(root, at(name), O_RDONLY);
  try {
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

describe.each(['with openat2', 'without'])('%s', (way) => {
  let opens = openBeneath;
  beforeEach(() => {
    if (way === 'with openat2') return;
    jest.isolateModules(() => {
      jest.doMock('../../src/system/libc', () => ({ ...libc, libcFunction: () => () => undefined }));
      ({ openBeneath: opens } = jest.requireActual<typeof import('../../src/system/open-beneath')>(
        '../../src/system/open-beneath',
      ));
    });
  });

  test('a file is read, and made', async () => {
    expect(await readAt('disk', opens)).toBe('the disk');
    const handle = await opens(root, at('new'), O_RDWR | O_CREAT | O_EXCL);
    await handle.writeFile('new');
    expect((await handle.stat()).mode & 0o777).toBe(0o600);
    await handle.close();
    expect(readFileSync(at('new'), 'utf8')).toBe('new');
    await expect(opens(root, at('new'), O_RDWR | O_CREAT | O_EXCL)).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(opens(root, at('none'), O_RDONLY)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('no link leads out, whether it is followed or made through', async () => {
    symlinkSync('../../secret', at('up'));
    symlinkSync(join(folder, 'secret'), at('away'));
    symlinkSync(join(folder, 'made'), at('dangling'));
    symlinkSync(join(folder, 'out'), at('folder'));
    symlinkSync('/proc/self/root', at('magic'));
    for (const name of ['up', 'away', 'dangling', 'folder/made', 'magic/etc/passwd'])
      for (const flags of [O_RDONLY, O_RDWR | O_CREAT])
        await expect(opens(root, at(name), flags)).rejects.toMatchObject({
          code: expect.stringMatching(/EXDEV|ELOOP/) as string,
        });
    expect([existsSync(join(folder, 'made')), existsSync(join(folder, 'out', 'made'))]).toEqual([false, false]);
  });

  test('a pipe or a folder is no image, and nobody waits for its other end', async () => {
    execFileSync('mkfifo', [at('pipe')]);
    for (const name of ['pipe', '.']) await expect(opens(root, at(name), O_RDONLY)).rejects.toThrow('no ordinary file');
  });
});

test('a folder that is swapped for a link while it is opened never leads out', async () => {
  mkdirSync(join(root, 'other'));
  linkSync(join(folder, 'secret'), join(folder, 'out', 'disk'));
  symlinkSync(join(folder, 'out'), join(root, 'link'));
  let ended = false;
  const swapping = (async () => {
    while (!ended) {
      await rename(join(root, 'vm'), join(root, 'away'));
      await rename(join(root, 'link'), join(root, 'vm'));
      await rename(join(root, 'vm'), join(root, 'link'));
      await rename(join(root, 'away'), join(root, 'vm'));
    }
  })();
  const seen = new Set<string>();
  for (let turn = 0; turn < 2000; turn += 1) {
    if (turn % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    try {
      const fd = openBeneathSync(root, at('disk'), O_RDONLY);
      seen.add(readFileSync(fd, 'utf8'));
      closeSync(fd);
    } catch (error) {
      seen.add((error as NodeJS.ErrnoException).code ?? '');
    }
  }
  ended = true;
  await swapping;
  expect(seen).toContain('the disk');
  expect(seen).not.toContain('a secret');
});

test('whether a path lies below a folder is asked of where it leads, also before it is there', () => {
  symlinkSync(join(folder, 'out'), join(root, 'out'));
  symlinkSync(root, join(folder, 'same'));
  const below = (...parts: readonly string[]): boolean => liesBelow(join(folder, ...parts), [root]);
  expect([below('root', 'vm', 'disk'), below('root', 'vm', 'new', 'er')]).toEqual([true, true]);
  expect([below('root'), below('root-2', 'x'), below('root', '..', 'secret'), below('secret')]).toEqual(
    Array(4).fill(false),
  );
  expect([below('root', 'out', 'x'), below('same', 'vm', 'disk')]).toEqual([false, false]);
});

test('a registry with roots names no place outside of them', async () => {
  const registry = new VmRegistry(join(folder, 'data'), [root]);
  const place = (path: string): unknown => registry.assertPlaces([{ path }]);
  expect(() => place(at('disk'))).not.toThrow();
  expect(() => place(registry.imagePath(undefined, 'vm', 'vda'))).not.toThrow();
  expect(() => place(join(folder, 'secret'))).toThrow('imageRoots');
  expect(() => place(join(folder, 'data', 'agent.key'))).toThrow('imageRoots');
  expect(() => new VmRegistry(folder).assertPlaces([{ path: '/anywhere' }])).not.toThrow();
  await registry.put({
    vmId: 'vm',
    images: [{ imageId: 'vda', kind: 'disk', path: join(folder, 'secret') }],
    presence: 'here',
    generation: 0,
  });
  await expect(registry.getHere('vm')).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});
