/** What is changed and not committed, reviewed. */
import assert from "node:assert/strict";

import { suite } from "./suite.mjs";

const test = suite({ git: true, files: { "a.py": "first = 1\n" } });

test("the changes of the working tree are reviewed, those that are staged too", async ({ workbench, model, server }) => {
  server.write("a.py", "first = 2\n");
  server.write("b.py", "second = 3\n");
  server.git("add", "b.py");
  const review = { rating: 3, summary: "It counts on.", findings: [] };
  model.answersWhere(() => true, [`\`\`\`json\n${JSON.stringify(review)}\n\`\`\``]);
  const chat = await workbench.openChat();
  await workbench.command("Sidecar: Get Feedback");
  await workbench.pick("Correctness").waitFor();
  await workbench.page.locator(".quick-input-widget").getByRole("button", { name: "OK" }).click();
  await chat.answers("complete").filter({ hasText: "Feedback on" }).waitFor();
  await chat.isShown("It counts on.");
  assert.equal(model.requests.length, 3, "each of those that come along was asked");
  const asked = JSON.stringify(model.requests[0]?.messages);
  assert.match(asked, /-first = 1\\n\+first = 2/);
  assert.match(asked, /\+second = 3/);
});
