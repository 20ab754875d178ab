/** `@sidecar` in VS Code's own chat, without an account and without a network. */
import assert from "node:assert/strict";

import { messages, conversation } from "./store.mjs";
import { suite } from "./suite.mjs";

const test = suite({ settings: { "chat.disableAIFeatures": false } });

test("@sidecar answers in the editor's own chat", async ({ workbench, model, server }) => {
  const { page } = workbench;
  await workbench.command("Chat: Open Chat");
  const input = page.locator(".interactive-input-part .monaco-editor").first();
  await input.click();
  await page.keyboard.type("@sidecar Hello from over here", { delay: 20 });
  await page.keyboard.press("Enter");
  await page.locator(".interactive-response").getByText("You said: Hello from over here").waitFor();
  assert.equal(model.timesAsked("Hello from over here"), 1);

  const made = conversation(server, "Hello from over here");
  assert.ok(made, "it is a conversation like any other");
  assert.equal(messages(server, made.conversationId).length, 2);
  const chat = await workbench.openChat();
  await chat.openConversations();
  await chat.conversation("Hello from over here").click();
  await chat.isShown("You said: Hello from over here");
});
