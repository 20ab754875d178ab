/** What agents do in the workspace, in many steps, and what the user has to say in it. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";

import { Gate, lastPrompt } from "./model.mjs";
import { suite } from "./suite.mjs";
import { eventually } from "./waiting.mjs";

/** @typedef {import("./model.mjs").WireMessage} WireMessage */

const ORIGINAL = "one\ntwo\n";
/** Line ends of both kinds, no last one, and letters of several bytes. */
const ODD = "é\r\ntwo\n\u{1F600}";
const test = suite({ files: { "a.txt": ORIGINAL, "odd.txt": ODD, "review.py": "def add(a, b):\n    return a - b\n" } });
const SCRIPTED = { "agentSidecar.provider": "scripted" };

test("what is always allowed is not asked again, until that is taken back", async ({ workbench, server }) => {
  server.change(SCRIPTED);
  const chat = await workbench.openChat();
  await chat.model.filter({ hasText: /script/i }).waitFor();
  await chat.newConversation();
  await chat.buildWithoutPlan();
  const RUN = 'tool run {"command": "echo hello from here"}';

  await chat.send(RUN);
  const always = chat.approval.getByRole("button", { name: "Always allow in this workspace" });
  await always.waitFor();
  assert.match((await always.getAttribute("title")) ?? "", /\necho hello from here/);
  await always.click();
  await chat.answers("complete").filter({ hasText: "hello from here" }).nth(0).waitFor();

  await chat.send(RUN);
  await chat.answers("complete").filter({ hasText: "hello from here" }).nth(1).waitFor();
  assert.equal(await chat.approval.count(), 0, "it was not asked again");

  await chat.send('tool run {"command": "echo something else"}');
  await chat.approval.waitFor();
  await chat.approval.getByRole("button", { name: "Deny" }).click();
  await chat.answers("complete").filter({ hasText: "did not allow" }).waitFor();

  await workbench.command("Sidecar: Manage Always-Allowed Commands");
  const row = workbench.pick("echo hello from here");
  await row.click();
  await workbench.page.locator(".quick-input-widget").getByRole("button", { name: "OK" }).click();
  await workbench.page.locator(".notification-toast").filter({ hasText: "asked about again" }).waitFor();
  await chat.send(RUN);
  await chat.approval.waitFor();
  await chat.approval.getByRole("button", { name: "Deny" }).click();
  await chat.approval.waitFor({ state: "detached" });

  await workbench.command("Sidecar: Show What Agents Did");
  await workbench.page.locator(".view-lines").filter({ hasText: /none.missing/ }).waitFor();
});

test("a protected file is marked, and never always allowed", async ({ workbench, server }) => {
  server.change(SCRIPTED);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.buildWithoutPlan();
  await chat.send('tool create {"path": ".vscode/tasks.json", "text": "{}"}');
  await chat.approval.getByText("Protected file").waitFor();
  assert.equal(await chat.approval.getByRole("button", { name: /Always/ }).count(), 0);
  await chat.approval.getByRole("button", { name: "Deny" }).click();
  await chat.approval.waitFor({ state: "detached" });
  assert.equal(existsSync(path.join(server.workspace, ".vscode/tasks.json")), false);
});

test("the output of a command is seen while it runs", async ({ workbench, server }) => {
  server.change(SCRIPTED);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.buildWithoutPlan();
  // What is shown meanwhile is not kept for who cannot keep up, so it goes on until it is seen.
  const command = "until [ -e go ]; do echo tick; sleep 0.2; done; echo end";
  await chat.send(`tool run ${JSON.stringify({ command })}`);
  await chat.approval.getByRole("button", { name: "Allow once" }).click();
  const live = chat.frame.getByLabel("Output so far");
  await live.getByText("tick").first().waitFor();
  server.write("go", "");
  await live.waitFor({ state: "detached" });
  await chat.answers("complete").filter({ hasText: "end" }).waitFor();
});

test("going back puts back, byte by byte, what the agent changed and the user did not", async ({ workbench, server }) => {
  server.change(SCRIPTED);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.buildWithoutPlan();
  const edit = async (/** @type {string} */ from, /** @type {string} */ to) => {
    await chat.send(`tool edit ${JSON.stringify({ path: "odd.txt", oldText: from, newText: to })}`);
    await chat.approval.getByRole("button", { name: "Allow once" }).click();
    await chat.answers("complete").filter({ hasText: "1 lines added, 1 removed" }).last().waitFor();
    await eventually(() => server.read("odd.txt").includes(to), "the file has the change");
  };
  await chat.ask("echo before", "before");
  await edit("two", "three");
  await chat.answers("complete").nth(1).waitFor();
  await edit("three", "four");
  await chat.answers("complete").nth(2).waitFor();

  const AGENTS = ODD.replace("two", "four");
  const goBack = async () => {
    const prompt = chat.messages.and(chat.frame.locator('[data-role="user"]')).filter({ hasText: '"oldText":"two"' });
    await prompt.hover();
    await prompt.getByRole("button", { name: "Rewind to here" }).click();
    await chat.rewind.getByText("4 messages, from this one on").waitFor();
  };
  await goBack();
  await chat.rewind.getByText("will be put back").click();
  await chat.rewind.getByText("-four").waitFor();
  await chat.rewind.getByText("+two").waitFor();
  await chat.rewind.getByRole("button", { name: "Cancel" }).click();
  assert.equal(server.read("odd.txt"), AGENTS, "looking changes nothing");

  server.write("odd.txt", `${AGENTS}\nmine\n`);
  await goBack();
  await chat.rewind.getByText("was changed since by somebody else").waitFor();
  assert.equal(await chat.rewind.getByRole("button", { name: "Rewind conversation and files" }).count(), 0);
  await chat.rewind.getByRole("button", { name: "Cancel" }).click();

  server.write("odd.txt", AGENTS);
  await goBack();
  server.write("odd.txt", `${AGENTS}\nmine\n`); // after it was looked at
  await chat.rewind.getByRole("button", { name: "Rewind conversation and files" }).click();
  await chat.rewind.getByRole("alert").getByText("Changed since by somebody else: odd.txt. Nothing was undone.").waitFor();
  assert.equal(server.read("odd.txt"), `${AGENTS}\nmine\n`);
  await chat.rewind.getByRole("button", { name: "Rewind anyway" }).click();
  await chat.rewind.waitFor({ state: "detached" });
  assert.equal(server.read("odd.txt"), ODD);
  await eventually(async () => (await chat.read()).length === 2, "the later messages are gone");
  assert.match(await chat.composer.inputValue(), /"oldText":"two"/);
});

/** @param {WireMessage[]} messages */
const whole = (messages) => JSON.stringify(messages);

test("two personas review a file, and one report comes of it", async ({ workbench, model, server }) => {
  server.change({ "agentSidecar.provider": "openai" });
  const review = (/** @type {number} */ rating, /** @type {string} */ words) => {
    const findings = [{ severity: "major", path: "review.py", line: 2, message: words, suggestion: "use +" }];
    return `\`\`\`json\n${JSON.stringify({ rating, summary: `It says: ${words}`, findings })}\n\`\`\``;
  };
  const newcomer = new Gate();
  model.answersWhere((messages) => whole(messages).includes("You review for correctness"), [review(1, "add subtracts")]);
  model.answersWhere((messages) => whole(messages).includes("You have just joined"), [newcomer, review(4, "no docstring")]);
  const chat = await workbench.openChat();
  await chat.model.filter({ hasText: "e2e-model" }).waitFor();

  const { page } = workbench;
  await page.locator(".activitybar").getByRole("tab", { name: /^Explorer/ }).click();
  await page.getByRole("treeitem", { name: "review.py" }).click({ button: "right" });
  // A click that comes right after the menu is taken for the one that opened it.
  await page.locator(".context-view .action-label").getByText("Get Feedback").hover();
  await page.keyboard.press("Enter");
  await workbench.pick("Security").click(); // those that come along are chosen; not this one
  await page.locator(".quick-input-widget").getByRole("button", { name: "OK" }).click();

  await chat.frame.getByRole("status", { name: "Progress" }).getByText("1/2 Correctness has reviewed").waitFor();
  assert.equal(await chat.mode.inputValue(), "feedback");
  newcomer.open();
  await chat.answers("complete").filter({ hasText: "Feedback on review.py" }).waitFor();
  await chat.isShown("It says: add subtracts");
  await chat.isShown("It says: no docstring");
  assert.equal(await chat.transcript.getByText("Looks for what can be abused").count(), 0);
  await chat.frame.getByText("2 places to look at").click();
  await chat.frame.getByRole("button", { name: "review.py:2" }).first().click();
  await page.locator(".editor-instance .view-lines").getByText("return a - b").waitFor();
  assert.equal(await chat.frame.getByRole("status", { name: "Progress" }).count(), 0);
});

test("a plan is accepted, carried out step by step, and verified", async ({ workbench, model, server }) => {
  server.change({ "agentSidecar.provider": "openai" });
  server.write("a.txt", ORIGINAL);
  const last = (/** @type {string} */ role, /** @type {RegExp} */ words) => (/** @type {WireMessage[]} */ messages) =>
    messages.at(-1)?.role === role && words.test(whole(messages.slice(-1)));
  const plan = { steps: ["Count on in a.txt", "Look at it again"], verify: "grep three a.txt", summary: "One word is to be another." };
  model.answersWhere(last("user", /First make a plan/), [{ tool: "plan", arguments: plan }]);
  model.answersWhere(last("user", /Step 1 of 2/), [{ tool: "edit", arguments: { path: "a.txt", oldText: "two", newText: "three" } }]);
  model.answersWhere(last("tool", /1 lines added/), ["I have counted on."]);
  model.answersWhere(last("user", /Step 2 of 2/), ["It looks fine."]);
  model.answersWhere(last("user", /Sum up what was changed/), ["All of it is done."]);
  const chat = await workbench.openChat();
  await chat.model.filter({ hasText: "e2e-model" }).waitFor();
  await chat.newConversation();
  await chat.mode.selectOption("build");
  if (!(await chat.planFirst.isChecked())) await chat.planFirst.check();
  await chat.send("Count on");

  await chat.approval.getByRole("button", { name: "Accept the plan" }).waitFor();
  assert.deepEqual(await chat.approval.locator("ol > li").allTextContents(), plan.steps);
  await chat.approval.getByText("grep three a.txt").waitFor();
  assert.equal(server.read("a.txt"), ORIGINAL);
  await chat.approval.getByRole("button", { name: "Accept the plan" }).click();
  await chat.approval.getByRole("heading", { name: "Edit a.txt?" }).waitFor();
  await chat.frame.getByRole("status", { name: "Progress" }).getByText("0/2 Count on in a.txt").waitFor();
  await chat.approval.getByRole("button", { name: "Allow once" }).click();
  await chat.approval.getByText("grep three a.txt").waitFor();
  await chat.approval.getByRole("button", { name: "Allow once" }).click();
  await chat.answers("complete").filter({ hasText: "All of it is done." }).waitFor();
  assert.equal(server.read("a.txt"), "one\nthree\n");
  assert.equal(await chat.frame.getByRole("status", { name: "Progress" }).count(), 0, "it went with its turn");
});

test("a persona is added, talked to and deleted", async ({ workbench, model, server }) => {
  server.change({ "agentSidecar.provider": "openai" });
  const chat = await workbench.openChat();
  await chat.model.filter({ hasText: "e2e-model" }).waitFor();
  await chat.newConversation();
  await workbench.command("Sidecar: Manage Personas");
  await workbench.pick("Add a persona").click();
  for (const [index, text] of ["Ada", "Counts", "You are Ada, who counts."].entries()) {
    await workbench.page.locator(".quick-input-title").getByText(`(${index + 1} of 3)`).waitFor();
    await workbench.enter(text);
  }
  await workbench.page.locator(".notification-toast").filter({ hasText: "Ada can be talked to" }).waitFor();
  await chat.frame.getByRole("button", { name: "Persona" }).click();
  await chat.frame.getByRole("menuitemradio", { name: "Ada: Counts" }).click();
  await chat.ask("Who are you?", "You said: Who are you?");
  const { messages } = model.requests.findLast((one) => lastPrompt(one.messages) === "Who are you?") ?? { messages: [] };
  assert.match(whole(messages), /You are Ada, who counts\./);
  await workbench.command("Sidecar: Manage Personas");
  await workbench.pick("Ada").click();
  await workbench.pick("Delete").click();
  await workbench.page.locator(".monaco-dialog-box").getByRole("button", { name: "Delete" }).click();
  await chat.frame.getByRole("button", { name: "Persona" }).click();
  await chat.frame.getByRole("menuitemradio", { name: "Ada: Counts" }).waitFor({ state: "detached" });
});
