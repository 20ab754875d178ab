/** What several tests need: the real sidecar, on a store of its own. */
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import type { Launch } from "./sidecar/launch";

const REPOSITORY = path.resolve(import.meta.dirname, "..", "..");

/** The interpreter of the repository's environment. */
export const python =
  process.env["AGENT_SIDECAR_PYTHON"] ?? path.join(REPOSITORY, ".venv", "bin", "python");

/** Why tests with the real sidecar cannot run here. In CI they run, and fail. */
export const isMissing = !existsSync(python) && !process.env["CI"];

export function realLaunch(program = ["-m", "sidecar", "serve"]): Launch {
  const home = mkdtempSync(path.join(tmpdir(), "sidecar-test-"));
  const env = { PATH: process.env["PATH"], HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home };
  return { command: python, args: ["-I", ...program], cwd: home, env, title: "the sidecar" };
}

/** A promise for the moment at which something becomes true; `look` is called at each change. */
export class Watch {
  private waiting: { isTrue: () => boolean; resolve: () => void }[] = [];

  look = (): void => {
    const [now, later] = [this.waiting.filter((w) => w.isTrue()), this.waiting.filter((w) => !w.isTrue())];
    this.waiting = later;
    for (const { resolve } of now) resolve();
  };

  until(isTrue: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.waiting.push({ isTrue, resolve });
      this.look();
    });
  }
}
