/**
 * An environment of the extension's own, for those who want a model and have no Python set up for
 * it: made once, on request, from the interpreter that was found.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

import { ofEnvironment } from "./interpreters";

export interface Making {
  /** The interpreter that makes it. */
  python: string;
  folder: string;
  /** What is installed, as pip takes it. */
  requirements: string[];
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  onLine(line: string): void;
}

/** Make the environment, or bring it up to date; returns its interpreter. Raises what went wrong. */
export async function makeEnvironment(making: Making): Promise<string> {
  await run(making, making.python, ["-I", "-m", "venv", "--upgrade-deps", making.folder]);
  const own = ofEnvironment(making.folder, process.platform);
  const options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"];
  await run(making, own, ["-I", "-m", "pip", "install", ...options, ...making.requirements]);
  return own;
}

/** The last lines say what is wrong; pip says it there. */
const TOLD_LINES = 5;

function run({ env, signal, onLine }: Making, command: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, signal, windowsHide: true });
    const tail: string[] = [];
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        if (tail.push(line) > TOLD_LINES) tail.shift();
        onLine(line);
      });
    }
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(tail.join("\n") || `${command} ended with code ${code}`));
    });
  });
}
