/** Looked up in jest's sandbox, each of these is slow enough to make arithmetic twelve times as slow. Timers stay: tests replace them. */
const sandboxInjectedGlobals = [
  ...[
    'Array',
    'ArrayBuffer',
    'Atomics',
    'BigInt',
    'Buffer',
    'DataView',
    'Error',
    'Float64Array',
    'Infinity',
    'Int32Array',
  ],
  ...['JSON', 'Map', 'Math', 'Number', 'Object', 'Promise', 'SharedArrayBuffer', 'String', 'Symbol', 'Uint16Array'],
  ...['Uint32Array', 'Uint8Array', 'WeakMap'],
];

/** One jest project per kind of test, over the compiled code: what is tested is what is built. Kinds: test/README.md. */
const project = (name, extra = {}) => ({
  displayName: name,
  rootDir: `${__dirname}/dist`,
  roots: [`<rootDir>/test/${name}`],
  testMatch: ['**/*.test.js'],
  transform: {},
  testEnvironment: 'node',
  sandboxInjectedGlobals,
  setupFilesAfterEnv: ['<rootDir>/test/helpers/setup.js'],
  ...extra,
});

module.exports = {
  maxWorkers: 1,
  testTimeout: 30_000,
  testSequencer: `${__dirname}/tools/longest-first.cjs`,
  projects: [
    project('unit'),
    project('contract'),
    project('integration'),
    project('qemu'),
    project('model'),
    project('replay'),
    project('workflow', {
      globalSetup: '<rootDir>/test/helpers/server-up.js',
      globalTeardown: '<rootDir>/test/helpers/server-down.js',
    }),
    project('deploy'),
    project('system'),
    project('sim'),
  ],
};
