/**
 * Which Python runs the sidecar. Candidates are tried in order; each is asked for its version
 * before it is used, and why one was not taken is kept for one readable report.
 */
import { execFile } from "node:child_process";
import path from "node:path";

/** The oldest Python that the sidecar runs on. */
export const NEEDED = [3, 11] as const;
const PROBE = "import json, sys; print(json.dumps([list(sys.version_info[:2]), sys.executable]))";
const PROBE_MILLISECONDS = 10_000;

export interface Candidate {
  /** Where it was found, as a person would say it. */
  source: string;
  command: string;
  args: string[];
}

export interface Interpreter {
  source: string;
  command: string;
  args: string[];
  version: string;
}

export interface Search {
  found: Interpreter | null;
  /** A line for each candidate that was not taken. */
  refused: string[];
}

export type Run = (command: string, args: string[]) => Promise<string>;

/** What is tried where nothing was chosen: the names that installers put on the PATH. */
export function onPath(platform: NodeJS.Platform): Candidate[] {
  const named = (command: string, ...args: string[]) => ({ source: "on the PATH", command, args });
  return platform === "win32"
    ? [named("py", "-3"), named("python"), named("python3")]
    : [named("python3"), named("python")];
}

/** The interpreter of a virtual environment. */
export function ofEnvironment(folder: string, platform: NodeJS.Platform): string {
  return platform === "win32"
    ? path.win32.join(folder, "Scripts", "python.exe")
    : path.posix.join(folder, "bin", "python");
}

/** `${workspaceFolder}`, `${userHome}` and a leading `~` in a setting. */
export function expanded(setting: string, folder: string | undefined, home: string): string {
  return setting
    .replaceAll("${workspaceFolder}", folder ?? "")
    .replaceAll("${userHome}", home)
    .replace(/^~(?=$|[/\\])/, home);
}

/** The first candidate that is new enough. Candidates may be found while others are tried. */
export async function search(
  candidates: AsyncIterable<Candidate> | Iterable<Candidate>,
  run: Run = execute,
): Promise<Search> {
  const refused: string[] = [];
  for await (const candidate of candidates) {
    const checked = await check(candidate, run);
    if (typeof checked !== "string") return { found: checked, refused };
    refused.push(`${[candidate.command, ...candidate.args].join(" ")} (${candidate.source}): ${checked}`);
  }
  return { found: null, refused };
}

/** The interpreter, or why it cannot be used. */
async function check(candidate: Candidate, run: Run): Promise<Interpreter | string> {
  let said: string;
  try {
    said = await run(candidate.command, [...candidate.args, "-I", "-c", PROBE]);
  } catch (error) {
    return reason(error);
  }
  try {
    const [[major, minor], executable] = JSON.parse(said) as [[number, number], string];
    if (major < NEEDED[0] || (major === NEEDED[0] && minor < NEEDED[1])) {
      return `it is Python ${major}.${minor}; ${NEEDED.join(".")} or newer is needed`;
    }
    // The launcher of Windows starts the real one, which is the one to be watched and ended.
    return { source: candidate.source, command: executable, args: [], version: `${major}.${minor}` };
  } catch {
    return "it does not answer as Python does";
  }
}

function reason(error: unknown): string {
  const failed = error as NodeJS.ErrnoException & { killed?: boolean; stderr?: string };
  if (failed.code === "ENOENT") return "there is no such program";
  if (failed.code === "EACCES") return "it may not be run";
  if (failed.killed) return `it did not answer within ${PROBE_MILLISECONDS / 1000} seconds`;
  const lines = (failed.stderr ?? "").trim().split("\n");
  return lines.at(-1) || failed.message;
}

function execute(command: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: PROBE_MILLISECONDS, windowsHide: true }, (error, stdout, stderr) => {
      if (error) reject(Object.assign(error, { stderr }));
      else resolve(stdout);
    });
  });
}
