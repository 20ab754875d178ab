/** The one stretch in which two texts differ. */
export function difference(
  before: string,
  after: string,
): { start: number; end: number; inserted: string } {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start += 1;
  let same = 0;
  while (same < most - start && before.at(-1 - same) === after.at(-1 - same)) same += 1;
  // A line end of two characters is one to the editor: it is taken whole or not at all.
  if (start > 0 && before[start - 1] === "\r") start -= 1;
  if (same > 0 && before[before.length - same] === "\n" && before[before.length - same - 1] === "\r") {
    same -= 1;
  }
  const end = Math.max(before.length - same, start);
  return { start, end, inserted: after.slice(start, after.length - (before.length - end)) };
}

/** A block of code in a chat ends with its last letter; a file ends its last line, if it did before. */
export function endedAs(before: string, after: string): string {
  return before.endsWith("\n") && !after.endsWith("\n") ? `${after}\n` : after;
}
