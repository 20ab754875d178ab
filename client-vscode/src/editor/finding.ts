/** Which files somebody means who types a few letters. */
import type { FoundFile } from "../shared/messages";

const MOST_FOUND = 20;

/** Files whose path has the letters of `query` in that order; the nearest together first. */
export function best(files: FoundFile[], query: string): FoundFile[] {
  const wanted = query.toLowerCase();
  return files
    .map((file) => ({ file, score: score(file.path.toLowerCase(), wanted) }))
    .filter((rated) => rated.score !== null)
    .sort((a, b) => (a.score ?? 0) - (b.score ?? 0) || a.file.path.localeCompare(b.file.path))
    .slice(0, MOST_FOUND)
    .map((rated) => rated.file);
}

/** Lower is better: the name itself, then the path, then letters far apart; null is no match. */
function score(path: string, wanted: string): number | null {
  const name = path.slice(path.lastIndexOf("/") + 1);
  if (name.startsWith(wanted)) return name.length;
  if (name.includes(wanted)) return 1_000 + name.length;
  if (path.includes(wanted)) return 2_000 + path.length;
  let at = -1;
  for (const letter of wanted) {
    at = path.indexOf(letter, at + 1);
    if (at < 0) return null;
  }
  return 3_000 + path.length;
}
