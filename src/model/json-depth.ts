/**
 * How deep a JSON text from elsewhere is nested, before anything is made of it: JSON.parse() takes any depth, and what is written
 * down, compared or walked through by recursion afterwards does not.
 */

/** @returns whether arrays and objects lie in one another more than `most` deep; a text that is no JSON may be said to be */
export function isDeep(text: string, most: number): boolean {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (inString) {
      if (char === '\\') at += 1;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '[' || char === '{') {
      depth += 1;
      if (depth > most) return true;
    } else if (char === ']' || char === '}') depth -= 1;
  }
  return false;
}
