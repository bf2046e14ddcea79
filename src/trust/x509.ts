/**
 * The X.509 library, loaded where a certificate is made or a list is read: it takes a while, and most processes never need it.
 */
import { createRequire } from 'node:module';

const load = createRequire(__filename);

export function x509(): typeof import('@peculiar/x509') {
  // What it stands on asks for this first, and says so no further.
  load('reflect-metadata');
  return load('@peculiar/x509') as typeof import('@peculiar/x509');
}
