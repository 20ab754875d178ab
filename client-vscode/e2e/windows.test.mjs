/** Two windows on one store. */
import assert from "node:assert/strict";

import { Gate, words } from "./model.mjs";
import { sidecarsOf } from "./processes.mjs";
import { suite } from "./suite.mjs";

const test = suite();

test("two windows show the same conversation while it goes on in either", async ({ workbench, model, server, open }) => {
  const gate = new Gate();
  const text = words(0, 100).join("").trim();
  model.answers("From the first window", [...words(0, 50), gate, ...words(50, 100)]);
  const first = await workbench.openChat();
  await first.send("From the first window");
  await gate.reached();

  const second = await (await open()).openChat();
  await second.openConversations();
  await second.conversation("From the first window").click();
  await second.answers("streaming").filter({ hasText: "w49" }).waitFor();
  assert.equal(sidecarsOf(server.mark).length, 2, "each window has its own sidecar");
  gate.open();
  for (const chat of [first, second]) await chat.answers("complete").filter({ hasText: "w99" }).waitFor();
  assert.equal(await second.lastAnswer(), text);

  await second.ask("From the second window", "You said: From the second window");
  await first.isShown("You said: From the second window");
  await first.ask("And from the first again", "You said: And from the first again");
  await second.isShown("You said: And from the first again");
  assert.deepEqual(await first.read(), await second.read());
  assert.equal(model.requests.length, 3);
});

test("a window that is closed in the middle of its turn leaves it to the other", async ({ workbench, model, open }) => {
  const gate = new Gate();
  const text = words(0, 100).join("").trim();
  model.answers("Close me", [...words(0, 50), gate, ...words(50, 100)]);
  const first = await workbench.openChat();
  await first.newConversation();
  await first.send("Close me");
  await gate.reached();
  const second = await (await open()).openChat();
  await second.openConversations();
  await second.conversation("Close me").click();
  await second.answers("streaming").filter({ hasText: "w49" }).waitFor();

  await workbench.close();
  gate.open();
  await second.answers("complete").filter({ hasText: "w99" }).waitFor();
  assert.equal(await second.lastAnswer(), text);
  await second.ask("Still there?", "You said: Still there?");
});
