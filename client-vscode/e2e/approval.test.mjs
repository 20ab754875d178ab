/** What an agent may do is asked with exactly what it will do, and answered in the chat. */
import assert from "node:assert/strict";

import { suite } from "./suite.mjs";
import { eventually } from "./waiting.mjs";

/** @typedef {import("./chat.mjs").Chat} Chat */

const ORIGINAL = "one\ntwo\n";
const EDIT = 'tool edit {"path": "a.txt", "oldText": "two", "newText": "three"}';
/** A provider for tests, whose prompts say what it does. */
const test = suite({ settings: { "agentSidecar.provider": "scripted" }, files: { "a.txt": ORIGINAL } });

test("a change is made when it is allowed, and only then", async ({ workbench, server }) => {
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.buildWithoutPlan();

  await chat.send(EDIT);
  const card = chat.frame.getByRole("group", { name: "Approval" });
  await card.waitFor();
  assert.match(await card.innerText(), /Edit a\.txt\?/);
  assert.deepEqual((await card.locator("pre").innerText()).trim().split("\n").slice(-3), [" one", "-two", "+three"]);
  await card.getByRole("button", { name: "Deny" }).click();
  await chat.answers("complete").filter({ hasText: "did not allow" }).waitFor();
  await card.waitFor({ state: "detached" });
  assert.equal(server.read("a.txt"), ORIGINAL);

  await chat.send(EDIT);
  await card.getByRole("button", { name: "Allow once" }).click();
  await chat.answers("complete").filter({ hasText: "1 lines added, 1 removed" }).waitFor();
  await eventually(() => server.read("a.txt") === "one\nthree\n", "the file has the change");
});

test("a question waits while nobody looks, and is answered from the other window", async ({ workbench, server, open }) => {
  server.write("a.txt", ORIGINAL);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.buildWithoutPlan();
  await chat.send(EDIT);
  await chat.frame.getByRole("group", { name: "Approval" }).waitFor();
  await workbench.hideChat();
  const other = await (await open()).openChat();
  await other.openConversations();
  await other.conversation("tool edit").click();
  await other.frame.getByRole("group", { name: "Approval" }).getByRole("button", { name: "Allow once" }).click();
  await other.answers("complete").filter({ hasText: "1 lines added" }).waitFor();
  await eventually(() => server.read("a.txt") === "one\nthree\n", "the file has the change");
  const again = await workbench.openChat();
  await again.answers("complete").filter({ hasText: "1 lines added" }).waitFor();
  assert.equal(await again.frame.getByRole("group", { name: "Approval" }).count(), 0);
});
