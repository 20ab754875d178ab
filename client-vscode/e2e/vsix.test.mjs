/** The package as a user gets it: nothing is there but an interpreter, and perhaps not even that. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after } from "node:test";

import { theSidecarOf } from "./processes.mjs";
import { suite } from "./suite.mjs";
import { pythonWithModels } from "./tools.mjs";

const folder = mkdtempSync(path.join(tmpdir(), "sidecar-e2e-bare-"));
const bare = path.join(folder, "bin/python");
execFileSync(pythonWithModels() ?? "python3", ["-m", "venv", "--without-pip", folder]);
after(() => rmSync(folder, { recursive: true }));

const test = suite({
  settings: { "agentSidecar.provider": "offline", "agentSidecar.interpreter": "/nowhere/python" },
  env: { PATH: "/nowhere" },
});

test("without an interpreter it says what it tried; with one it answers from the files", async ({ workbench, server }) => {
  await workbench.clickIcon();
  const { chat } = workbench;
  const card = chat.frame.getByRole("alert").filter({ hasText: "Python" });
  await card.waitFor();
  const said = await card.innerText();
  assert.match(said, /No Python 3\.11 or newer was found/);
  assert.match(said, /\/nowhere\/python.*there is no such program/);
  await card.getByRole("button", { name: "Choose Python" }).waitFor();

  server.change({ "agentSidecar.interpreter": bare });
  await chat.isReady();
  const pid = await theSidecarOf(server.mark);
  const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  assert.equal(command[0], bare);
  assert.ok(command[2]?.startsWith(path.join(server.base, "extensions")), "the bundled sidecar runs");

  await chat.ask("hello", "No model is connected yet");
  await chat.ask("where is hello defined?", "def hello()");
  assert.match((await chat.read()).at(-1)?.text ?? "", /hello\.py/);
});
