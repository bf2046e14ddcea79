/** One jest project per kind of test, over the compiled code: what is tested is what is built. Kinds: test/README.md. */
const project = (name, extra = {}) => ({
  displayName: name,
  rootDir: `${__dirname}/dist`,
  roots: [`<rootDir>/test/${name}`],
  testMatch: ['**/*.test.js'],
  transform: {},
  testEnvironment: 'node',
  setupFilesAfterEnv: ['<rootDir>/test/helpers/setup.js'],
  ...extra,
});

module.exports = {
  maxWorkers: 1,
  testTimeout: 30_000,
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
