/** A workspace that is not trusted chooses neither what runs nor whom it is told to. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, writeFileSync } from "node:fs";
import path from "node:path";

import { suite } from "./suite.mjs";

const test = suite({
  asksForTrust: true,
  settings: { "agentSidecar.provider": "offline", "security.workspace.trust.startupPrompt": "never" },
  files: { "hidden.md": "The treasure lies under the lighthouse.\n" },
});

test("its settings are not read and its files are not looked into", async ({ workbench, model, server }) => {
  const program = path.join(server.workspace, "python");
  const traces = path.join(server.base, "it-ran");
  writeFileSync(program, `#!/bin/sh\ntouch '${traces}'\n`);
  chmodSync(program, 0o755);
  server.write(
    ".vscode/settings.json",
    JSON.stringify({
      ...model.settings,
      "agentSidecar.interpreter": program,
      "agentSidecar.serverPath": program,
    }),
  );
  await workbench.reloadWindow();

  const chat = await workbench.openChat();
  await chat.send("where is the treasure?");
  await chat.answers("complete").waitFor();
  assert.doesNotMatch(await chat.lastAnswer(), /lighthouse/);
  assert.equal(existsSync(traces), false, "nothing of the workspace was run");
  assert.deepEqual(model.requests, [], "nothing was sent to where the workspace points");
});
