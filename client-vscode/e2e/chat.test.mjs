/** What a person does in the chat, with a real sidecar and a model that a test leads by the hand. */
import assert from "node:assert/strict";

import { Gate, words } from "./model.mjs";
import { conversation, conversations, messages, textOf } from "./store.mjs";
import { suite } from "./suite.mjs";
import { eventually } from "./waiting.mjs";

const test = suite();

test("an answer streams, and stops when it is told to", async ({ workbench, model, server }) => {
  const gate = new Gate();
  const half = words(0, 40).join("").trim();
  model.answers("Tell me a lot", [...words(0, 40), gate, ...words(40, 80)]);
  const chat = await workbench.openChat();

  await chat.send("Tell me a lot");
  await gate.reached();
  await chat.answers("streaming").filter({ hasText: "w39" }).waitFor();
  assert.equal(await chat.lastAnswer(), half);
  await chat.stopButton.click();

  await chat.answers("cancelled").waitFor();
  assert.equal(await chat.lastAnswer(), half, "what was said is kept");
  await chat.stopButton.waitFor({ state: "detached" });
  await chat.ask("And now?", "You said: And now?");
  const stored = conversation(server, "Tell me a lot");
  assert.ok(stored);
  const [, stopped] = messages(server, stored.conversationId);
  assert.ok(stopped);
  assert.deepEqual([stopped.status, textOf(stopped).trim()], ["cancelled", half]);
});

test("what waits behind a turn is edited, moved and removed", async ({ workbench, model }) => {
  const gate = new Gate();
  model.answers("first", ["The first answer.", gate]);
  const chat = await workbench.openChat();
  await chat.newConversation();

  await chat.send("first");
  await gate.reached();
  for (const text of ["second", "third", "fourth"]) {
    await chat.composer.fill(text);
    await chat.composer.press("Enter");
    await chat.queued(text).waitFor();
  }
  for (const place of [1, 0]) {
    await chat.queued("fourth").getByRole("button", { name: "Move up" }).click();
    await chat.queue.getByRole("listitem").nth(place).filter({ hasText: "fourth" }).waitFor();
  }
  await chat.queued("third").getByRole("button", { name: "Remove" }).click();
  await chat.queued("third").waitFor({ state: "detached" });
  await chat.queued("second").getByRole("button", { name: "Edit" }).click();
  const editor = chat.queue.getByRole("textbox");
  await editor.fill("second, thought over");
  await editor.press("Enter");
  await chat.queued("second, thought over").waitFor();
  gate.open();

  await chat.isShown("You said: second, thought over");
  await chat.queue.waitFor({ state: "detached" });
  assert.deepEqual(
    (await chat.read()).filter(({ role }) => role === "user").map(({ text }) => text),
    ["first", "fourth", "second, thought over"],
  );
  assert.equal(model.timesAsked("third"), 0);
  assert.equal(model.timesAsked("second"), 0);
});

test("mode and model are switched, and hold for the next turn", async ({ workbench, model, server }) => {
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.ask("In which mode is this?", "You said: In which mode is this?");
  await chat.mode.selectOption("feedback");
  await eventually(() => conversation(server, "In which mode")?.mode === "feedback", "the mode is stored");
  assert.equal(await chat.mode.inputValue(), "feedback");

  server.change({ "agentSidecar.openaiModel": "another-model" });
  await chat.model.filter({ hasText: "another-model" }).waitFor();
  await chat.ask("And with which model?", "You said: And with which model?");
  assert.deepEqual(
    model.requests.slice(-2).map((request) => request.model),
    ["e2e-model", "another-model"],
  );
});

test("conversations are searched, renamed, and deleted with a way back", async ({ workbench, server }) => {
  const chat = await workbench.openChat();
  for (const topic of ["a zebra at noon", "a walrus at night"]) {
    await chat.newConversation();
    await chat.ask(`Tell me of ${topic}`, `You said: Tell me of ${topic}`);
  }

  await chat.openConversations();
  await chat.search.fill("zebra");
  await chat.conversation("walrus").waitFor({ state: "detached" });
  await chat.conversation("zebra").click();
  await chat.isShown("You said: Tell me of a zebra at noon");

  await chat.openConversations();
  await chat.search.fill("");
  await chat.manage("zebra", "Delete");
  await chat.conversation("zebra").waitFor({ state: "detached" });
  await chat.frame.getByRole("button", { name: "Undo" }).click();
  await chat.openConversations();
  await chat.conversation("zebra").waitFor();
  assert.ok(conversation(server, "zebra"), "it was not deleted");

  await chat.manage("walrus", "Delete");
  await eventually(() => !conversation(server, "walrus"), "it is deleted when the time is over");
  assert.equal(conversations(server).filter(({ title }) => title?.includes("zebra")).length, 1);
});

test("what is not sent yet survives", async ({ workbench }) => {
  const DRAFT = "half a thought";
  let chat = await workbench.openChat();
  await chat.newConversation();
  await chat.composer.fill(DRAFT);
  for (const leave of [() => workbench.hideChat(), () => workbench.reloadWindow(), () => workbench.crashAndReopen()]) {
    await leave();
    chat = await workbench.openChat();
    await eventually(async () => (await chat.composer.inputValue()) === DRAFT, "the draft is there again");
  }
});
