/** A key reaches the model and nothing else. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import { suite } from "./suite.mjs";

const test = suite({ settings: { "agentSidecar.logLevel": "debug" } });
const KEY = "sk-e2e-0f6e1b7d-never-write-this-down";

test("a key is kept by the editor and written nowhere", async ({ workbench, model, server }) => {
  let chat = await workbench.openChat();
  await workbench.command("Sidecar: Set API Key");
  await workbench.enter(KEY);
  await chat.ask("With a key?", "You said: With a key?");
  assert.equal(model.requests.at(-1)?.key, KEY);

  await workbench.reloadWindow();
  chat = await workbench.openChat();
  await chat.ask("Still with a key?", "You said: Still with a key?");
  assert.equal(model.requests.at(-1)?.key, KEY, "it survives a reload");

  assert.deepEqual(filesWith(KEY, server.base), []);
  assert.ok(!execFileSync("ps", ["axeww"], { encoding: "utf8", maxBuffer: 1 << 26 }).includes(KEY));
  assert.ok(!(await chat.frame.locator("html").innerHTML()).includes(KEY));
});

/**
 * @param {string} text
 * @param {string} folder
 */
function filesWith(text, folder) {
  const found = execFileSync("sh", ["-c", 'grep -rlF -- "$1" "$2" || test $? = 1', "sh", text, folder]);
  return found.toString().split("\n").filter(Boolean);
}
