/** What the chat and the text editor do for each other. */
import assert from "node:assert/strict";

import { lastPrompt } from "./model.mjs";
import { suite } from "./suite.mjs";
import { eventually } from "./waiting.mjs";

/** @typedef {import("./workbench.mjs").Workbench} Workbench */

const ORIGINAL = "def hello():\n    return 'hello'\n";
const CHANGED = "def hello():\n    return 'goodbye'\n";
const test = suite({
  files: { "hello.py": ORIGINAL, "main.py": "from hello import hello\n\n", "draft.py": "first = 1\n" },
});

test("a selection goes along with the question", async ({ workbench, model }) => {
  await openFile(workbench);
  await workbench.page.keyboard.press("Control+A");
  await workbench.command("Sidecar: Explain Selection");
  const { chat } = workbench;
  await chat.answers("complete").waitFor();
  const { messages } = model.requests.at(-1) ?? { messages: [] };
  assert.match(lastPrompt(messages), /Explain this\./);
  assert.match(JSON.stringify(messages), /return 'hello'/);
});

test("a change is shown before it is made, and made if it is wanted", async ({ workbench, model, server }) => {
  const { page } = workbench;
  model.answers("Change it", [`Like this:\n\n\`\`\`python\n${CHANGED}\`\`\`\n`]);
  await openFile(workbench);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.ask("Change it", "goodbye");

  const apply = chat.transcript.locator("figure.code").getByRole("button", { name: "Apply" });
  const notification = page.locator(".notification-toast").filter({ hasText: "Apply this change to hello.py?" });
  await apply.click();
  await page.locator(".monaco-diff-editor").getByText("goodbye").first().waitFor();
  await notification.getByRole("button", { name: "Discard" }).click();
  await page.locator(".monaco-diff-editor").waitFor({ state: "detached" });
  assert.equal(server.read("hello.py"), ORIGINAL);
  assert.equal(await page.locator(".tab.dirty").count(), 0, "nothing was changed");

  await apply.click();
  await notification.getByRole("button", { name: "Apply" }).click();
  await page.locator(".monaco-diff-editor").waitFor({ state: "detached" });
  await page.locator(".editor-instance .view-lines").getByText("goodbye").waitFor();
  await save(workbench);
  await eventually(() => server.read("hello.py") === CHANGED, "what is saved is the change");
});

test("code is inserted where the cursor was", async ({ workbench, model, server }) => {
  model.answers("One line", ["Here:\n\n```python\nprint(hello())\n```\n"]);
  await openFile(workbench, "main.py");
  await workbench.page.keyboard.press("Control+End");
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.ask("One line", "print");
  await chat.transcript.locator("figure.code").getByRole("button", { name: "Insert at cursor" }).click();
  await workbench.page.locator(".editor-instance .view-lines").getByText("print").waitFor();
  await save(workbench);
  await eventually(
    () => /^from hello import hello\n\nprint\(hello\(\)\)\n?$/.test(server.read("main.py")),
    "what is saved has the code at its end",
  );
});

test("the agent reads what is not saved yet", async ({ workbench, server }) => {
  server.change({ "agentSidecar.provider": "offline" });
  await openFile(workbench, "draft.py");
  await workbench.page.keyboard.press("Control+End");
  await workbench.page.keyboard.type("second = 2  # not saved");
  await workbench.page.locator(".tab.dirty").waitFor();
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.ask("show draft.py", "second = 2");
  assert.equal(server.read("draft.py"), "first = 1\n");
});

/** @param {Workbench} workbench */
async function openFile({ page }, name = "hello.py") {
  await page.getByRole("treeitem", { name }).dblclick();
  await page.locator(".editor-instance .view-lines").first().click();
}

/** @param {Workbench} workbench */
async function save({ page }) {
  await page.locator(".editor-instance .view-lines").first().click();
  await page.keyboard.press("Control+S");
  await page.locator(".tab.dirty").waitFor({ state: "detached" });
}
