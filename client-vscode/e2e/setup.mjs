/**
 * Installs the VS Code server and its Node into `.e2e-tools/`, once: `node e2e/setup.mjs`.
 *
 * Nothing is compiled and no package's install script runs. Of npm's `code-server` only the
 * tarball is taken: its own packages serve its front, which is not started.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { edition, installed, isInstalled } from "./tools.mjs";

export function setUp() {
  if (isInstalled()) return;
  const { server, node } = edition();
  rmSync(installed.folder, { recursive: true, force: true });
  step(`VS Code server (code-server ${server})`, () => {
    unpack(`code-server@${server}`, installed.codeServer);
  });
  step("its packages", () => {
    // `npm ci` refuses: the lock file that it ships is out of step with its package.json.
    npm(["install", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], installed.vscode);
  });
  step(`Node ${node}`, () => {
    unpack(`node-${process.platform}-${process.arch}@${node}`, path.join(installed.folder, "node"));
  });
  writeFileSync(installed.stamp, JSON.stringify(edition()));
}

/**
 * @param {string} what
 * @param {() => void} action
 */
function step(what, action) {
  process.stdout.write(`Installing ${what} … `);
  const start = Date.now();
  action();
  process.stdout.write(`${((Date.now() - start) / 1000).toFixed(0)} s\n`);
}

/**
 * @param {string} spec
 * @param {string} into
 */
function unpack(spec, into) {
  mkdirSync(into, { recursive: true });
  const said = npm(["pack", "--json", spec], installed.folder);
  const [{ filename }] = JSON.parse(said);
  const archive = path.join(installed.folder, filename);
  execFileSync("tar", ["xzf", archive, "--strip-components=1", "-C", into]);
  rmSync(archive);
}

/**
 * @param {string[]} args
 * @param {string} cwd
 */
function npm(args, cwd) {
  return execFileSync("npm", [...args, "--loglevel=error"], { cwd, encoding: "utf8" });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  setUp();
  console.log(`VS Code for the end-to-end tests: ${installed.folder}`);
}
