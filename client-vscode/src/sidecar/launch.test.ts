import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";

import { environment, NothingToStart, plan, type LaunchOptions } from "./launch";

const found = { source: "a test", command: "/python", args: [], version: "3.13" };

function options(changes: Partial<LaunchOptions> = {}): LaunchOptions {
  const extensionPath = mkdtempSync(path.join(tmpdir(), "launch-"));
  return { extensionPath, home: "/home/me", serverPath: "", candidates: [], env: {}, ...changes };
}

test("the bundled sidecar is started in isolation, outside of the workspace", async () => {
  const given = options();
  mkdirSync(path.join(given.extensionPath, "bundle", "libs"), { recursive: true });
  const launch = await plan(given, async () => ({ found, refused: [] }));
  const start = path.join(given.extensionPath, "bundle", "start.py");
  expect([launch.command, ...launch.args]).toEqual(["/python", "-I", start, "serve"]);
  expect(launch.cwd).toBe("/home/me");
  expect(launch.title).toContain("Python 3.13 (a test)");
});

test("without a bundle the interpreter's own is started", async () => {
  const launch = await plan(options(), async () => ({ found, refused: [] }));
  expect(launch.args).toEqual(["-I", "-m", "sidecar", "serve"]);
});

test("a program of the user's own wins, and no interpreter is looked for", async () => {
  const given = options();
  const serverPath = path.join(given.extensionPath, "agent-sidecar");
  writeFileSync(serverPath, "");
  const launch = await plan({ ...given, serverPath }, () => Promise.reject(new Error("looked")));
  expect([launch.command, ...launch.args]).toEqual([serverPath, "serve"]);
});

test("what is missing is said with all that was tried", async () => {
  const none = plan(options(), async () => ({ found: null, refused: ["a: no", "b: no"] }));
  await expect(none).rejects.toMatchObject({ message: "No Python 3.11 or newer was found.", tried: ["a: no", "b: no"] });
  await expect(plan(options({ serverPath: "/nowhere/x" }))).rejects.toBeInstanceOf(NothingToStart);
});

test("nothing of the environment changes what Python runs", () => {
  const env = { PATH: "/bin", PYTHONPATH: "/evil", PYTHONSTARTUP: "x", PYTHONUTF8: "1", VSCODE_PID: "1", NODE_OPTIONS: "x", HOME: "/h" };
  expect(environment(env)).toEqual({ PATH: "/bin", PYTHONUTF8: "1", HOME: "/h" });
});
