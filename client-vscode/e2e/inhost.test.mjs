/** Runs `inhost/index.cjs` in the extension host, on the extension's own folder. */
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { Server } from "./server.mjs";
import { root } from "./tools.mjs";
import { inTime } from "./waiting.mjs";
import { startBrowser } from "./workbench.mjs";

test("inside the extension host", async () => {
  const server = await Server.start({
    tests: path.join(root, "e2e/inhost/index.cjs"),
    settings: { "agentSidecar.provider": "openai", "agentSidecar.openaiBaseUrl": "http://127.0.0.1:9/v1" },
    env: { OPENAI_API_KEY: "sk-e2e-from-the-environment" },
  });
  const browser = await startBrowser();
  try {
    const page = await browser.newPage();
    /** @type {string[]} */
    const said = [];
    page.on("console", (message) => said.push(message.text()));
    await page.exposeFunction("codeAutomationLog", (/** @type {string} */ _type, /** @type {unknown[]} */ args) => {
      said.push(args.join(" "));
    });
    // The workbench says by this function how the tests in its host have ended.
    const ended = new Promise((resolve) => page.exposeFunction("codeAutomationExit", resolve).then(() => page.goto(server.url)));
    assert.equal(await inTime(ended, "the tests in the host end"), 0, said.join("\n"));
  } finally {
    await browser.close();
    await server.stop();
  }
});
