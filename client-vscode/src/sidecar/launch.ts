/** How the sidecar is started, once it is known what with. */
import { existsSync } from "node:fs";
import path from "node:path";

import { NEEDED, search, type Candidate, type Interpreter } from "./interpreters";

export interface Launch {
  command: string;
  args: string[];
  cwd: string;
  env: NodeJS.ProcessEnv;
  /** For the log: what runs, and where it was found. */
  title: string;
}

export interface LaunchOptions {
  extensionPath: string;
  home: string;
  /** An `agent-sidecar` of the user's own; it wins. */
  serverPath: string;
  candidates: AsyncIterable<Candidate> | Iterable<Candidate>;
  env: NodeJS.ProcessEnv;
}

/** Why there is nothing to start, with all that was tried. */
export class NothingToStart extends Error {
  constructor(
    message: string,
    readonly tried: string[],
  ) {
    super(message);
  }
}

/** Raises `NothingToStart`. */
export async function plan(options: LaunchOptions, find = search): Promise<Launch> {
  const base = { cwd: options.home, env: environment(options.env) };
  if (options.serverPath) {
    if (!existsSync(options.serverPath)) {
      throw new NothingToStart("The sidecar named in the setting 'serverPath' does not exist.", [
        `${options.serverPath}: there is no such file`,
      ]);
    }
    const title = `${options.serverPath} (setting 'serverPath')`;
    return { command: options.serverPath, args: ["serve"], title, ...base };
  }
  const { found, refused } = await find(options.candidates);
  if (found === null) {
    throw new NothingToStart(`No Python ${NEEDED.join(".")} or newer was found.`, refused);
  }
  const title = `${found.command}, Python ${found.version} (${found.source})`;
  return { command: found.command, args: argumentsOf(found, options.extensionPath), title, ...base };
}

/**
 * Isolated from the user's own packages and from the folder it is started in: neither may put a
 * module in the place of one of ours.
 */
function argumentsOf(interpreter: Interpreter, extensionPath: string): string[] {
  const start = path.join(extensionPath, "bundle", "start.py");
  const bundled = existsSync(path.join(extensionPath, "bundle", "libs"));
  return [...interpreter.args, "-I", ...(bundled ? [start] : ["-m", "sidecar"]), "serve"];
}

/** What Python and Electron read of the environment would change what is run. */
export function environment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const dropped = /^(PYTHON(?!UTF8$)|ELECTRON_|VSCODE_|NODE_OPTIONS$)/i;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !dropped.test(name)));
}
