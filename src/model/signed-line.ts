/** A line of signed text (src/trust/signed-text.ts) and a pin, as they cross borders. */
import { z } from 'zod';

export const signedLineSchema = z.string().max(4000);
/** SHA-256 of a public key, base64url. */
export const pinSchema = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'a pin is a SHA-256 in base64url');
