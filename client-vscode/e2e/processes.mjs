/** Processes of a test: found by a mark in their environment, which their children inherit. */
import { execFileSync } from "node:child_process";
import { createServer } from "node:net";

import { eventually } from "./waiting.mjs";

export const MARK = "AGENT_SIDECAR_E2E";

/**
 * The sidecars that carry a mark; workers that they started for a model do not count.
 * @param {string} mark
 * @returns {number[]} their process ids
 */
export function sidecarsOf(mark) {
  // With `e`, the environment stands behind the command.
  const listing = execFileSync("ps", ["axeww", "-o", "pid=,command="], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 ** 2,
  });
  return listing
    .split("\n")
    .filter((line) => line.includes(`${MARK}=${mark}`) && /\s(start\.py|\S*\/start\.py|-m sidecar) serve\b/.test(line))
    .map((line) => Number.parseInt(line, 10));
}

/** @param {number} pid */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} mark */
export async function theSidecarOf(mark) {
  const found = await eventually(() => {
    const pids = sidecarsOf(mark);
    return pids.length === 1 ? pids : null;
  }, "exactly one sidecar runs");
  return /** @type {number} */ (found[0]);
}

/** @returns {Promise<number>} a port that was free just now */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = address && typeof address === "object" ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
