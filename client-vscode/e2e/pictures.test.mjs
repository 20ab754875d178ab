/**
 * The pictures of the README, made by the product itself: `E2E_SHOTS=1 npm run e2e pictures`.
 * Without that they are made and not kept: what is in them is looked for all the same.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";

import { suite } from "./suite.mjs";
import { root } from "./tools.mjs";

const FILE = `"""Where the server listens."""

import os

DEFAULT_PORT = 8080


def port() -> int:
    """The port from the environment, or the default."""
    value = os.environ.get("PORT", "")
    return int(value) if value.isdigit() else DEFAULT_PORT
`;

const QUESTION = "Why does PORT=0x1F90 end up on 8080, and how do I accept it?";
const ANSWER = `\`port()\` takes a value only if **all of it is digits**: \`"0x1F90".isdigit()\` is false, so the default is used and nobody is told.

Let \`int\` read any base, and say what is wrong with the rest:

\`\`\`python
def port() -> int:
    """The port from the environment, or the default."""
    value = os.environ.get("PORT")
    if value is None:
        return DEFAULT_PORT
    return int(value, base=0)
\`\`\`

With \`base=0\` a value such as \`0x1F90\` is read as Python reads it.`;

const THEMES = [
  { name: "light", theme: "Light Modern", kind: "vscode-light" },
  { name: "dark", theme: "Dark Modern", kind: "vscode-dark" },
  { name: "high-contrast", theme: "Default High Contrast", kind: "vscode-high-contrast" },
];

const test = suite({
  settings: { "workbench.colorTheme": THEMES[0]?.theme, "agentSidecar.openaiModel": "claude-sonnet-5-5" },
  files: { "src/server/address.py": FILE },
});

test("light, dark and high contrast", async ({ workbench, model, server }) => {
  const { page } = workbench;
  model.answers(QUESTION, [ANSWER]);
  await page.getByRole("treeitem", { name: "src" }).first().click();
  await page.getByRole("treeitem", { name: "address.py" }).dblclick();
  await page.locator(".editor-instance .view-lines").getByText("isdigit").waitFor();
  const chat = await workbench.openChat();
  await chat.ask(QUESTION, "as Python reads it");
  await page.locator(".part.sidebar").waitFor();
  await widenSideBar(page, 470);

  for (const { name, theme, kind } of THEMES) {
    server.change({ "workbench.colorTheme": theme });
    await chat.frame.locator(`body.${kind}`).waitFor();
    const picture = await page.screenshot(kept(name));
    assert.ok(picture.length > 10_000, "the picture is not empty");
  }
});

/**
 * @param {import("playwright-core").Page} page
 * @param {number} width
 */
async function widenSideBar(page, width) {
  const box = await page.locator(".part.sidebar").boundingBox();
  assert.ok(box);
  const edge = box.x + box.width;
  await page.mouse.move(edge, 400);
  await page.mouse.down();
  await page.mouse.move(box.x + width, 400, { steps: 4 });
  await page.mouse.up();
  await page.mouse.move(900, 700);
}

/** @param {string} name */
function kept(name) {
  if (process.env.E2E_SHOTS !== "1") return {};
  const folder = path.join(root, "media/screenshots");
  mkdirSync(folder, { recursive: true });
  return { path: path.join(folder, `${name}.png`) };
}
