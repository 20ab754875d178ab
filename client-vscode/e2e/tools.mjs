/**
 * What the end-to-end tests need beside the npm packages: a VS Code server, a Node that runs it, a
 * browser, and a Python for the sidecar. `setup.mjs` installs the first two; the others are the
 * machine's own.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/**
 * A VS Code that is tested: `server` is the version of npm's `code-server`, of which only the inner
 * VS Code server is used, and `node` that of the Node which it runs on.
 * @typedef {{ name: string, server: string, node: string }} Edition
 */

/** The newest and the oldest that the extension promises to run in. */
const EDITIONS = {
  newest: { name: "newest", server: "4.139.1", node: "24.21.0" },
  oldest: { name: "oldest", server: "4.100.3", node: "20.20.2" },
};

/** @returns {Edition} the one that `E2E_VSCODE` asks for */
export function edition() {
  const name = process.env.E2E_VSCODE ?? "newest";
  if (name === "newest" || name === "oldest") return EDITIONS[name];
  throw new Error(`E2E_VSCODE is "${name}"; it can be "newest" or "oldest".`);
}

export const isNewest = edition().name === "newest";

const folder = path.join(root, ".e2e-tools", edition().name);

export const installed = {
  folder,
  codeServer: path.join(folder, "code-server"),
  vscode: path.join(folder, "code-server/lib/vscode"),
  node: path.join(folder, "node/bin/node"),
  /** Says which versions are here; written last. */
  stamp: path.join(folder, "installed.json"),
};

export function isInstalled() {
  const { stamp } = installed;
  return existsSync(stamp) && readFileSync(stamp, "utf8") === JSON.stringify(edition());
}

/** @param {(string | undefined)[]} candidates */
function firstThere(candidates) {
  return candidates.find((candidate) => candidate && existsSync(candidate)) ?? null;
}

/** The browser, or null. */
export function chromium() {
  const usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  return firstThere([process.env.E2E_CHROMIUM, ...usual]);
}

/** A Python that has the sidecar's extras for models, or null. */
export function pythonWithModels() {
  return firstThere([process.env.E2E_PYTHON, path.resolve(root, "../.venv/bin/python")]);
}

/** Why these tests cannot run here, or null. */
export function missing() {
  if (!chromium()) return "no Chromium was found: install it, or name it in E2E_CHROMIUM";
  if (!pythonWithModels()) return "no Python with the sidecar was found: run `make setup` first";
  if (process.platform === "win32") return "they start processes in a POSIX way";
  return null;
}
