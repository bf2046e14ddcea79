#!/usr/bin/env node
/** The `dwcp` command of a clone: installs and builds where that is missing, then runs it. */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.argv.splice(2, 0, 'dwcp');
await import(join(dirname(dirname(fileURLToPath(import.meta.url))), 'tools', 'bootstrap.mjs'));
