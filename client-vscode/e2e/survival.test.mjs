/** Whatever happens in the middle of an answer, the transcript is what the model said. */
import assert from "node:assert/strict";

import { Gate, words } from "./model.mjs";
import { isAlive, sidecarsOf, theSidecarOf } from "./processes.mjs";
import { isStored } from "./store.mjs";
import { suite } from "./suite.mjs";
import { eventually } from "./waiting.mjs";

/**
 * @typedef {import("./suite.mjs").Scene} Scene
 * @typedef {import("./workbench.mjs").Workbench} Workbench
 */

const test = suite();
const FIRST = words(0, 60);
const SECOND = words(60, 120);
const HALF = FIRST.join("").trim();
const WHOLE = [...FIRST, ...SECOND].join("").trim();

/**
 * Ask for an answer that stands still in its middle.
 * @param {Scene} scene
 * @param {string} prompt
 */
async function askForHalf({ workbench, model }, prompt) {
  const gate = new Gate();
  model.answers(prompt, [...FIRST, gate, ...SECOND]);
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.send(prompt);
  await gate.reached();
  await chat.answers("streaming").filter({ hasText: "w59" }).waitFor();
  return gate;
}

/**
 * The answer stands there once, complete, and the model was asked for it once.
 * @param {Scene} scene
 * @param {string} prompt
 */
async function isWhole({ workbench, model }, prompt) {
  const chat = await workbench.openChat();
  await chat.answers("complete").filter({ hasText: "w119" }).waitFor();
  assert.deepEqual(await chat.read(), [
    { role: "user", status: "complete", text: prompt },
    { role: "assistant", status: "complete", text: WHOLE },
  ]);
  assert.equal(model.timesAsked(prompt), 1);
}

/** @type {[string, (workbench: Workbench) => Promise<void>][]} */
const INTERRUPTIONS = [
  ["the window is reloaded", (workbench) => workbench.reloadWindow()],
  ["the window crashes and is opened again", (workbench) => workbench.crashAndReopen()],
  ["the view is hidden", (workbench) => workbench.hideChat()],
  ["the view is moved to the panel", (workbench) => workbench.moveChatToPanel()],
];

for (const [what, interrupt] of INTERRUPTIONS) {
  test(`${what} before the second half comes`, async (scene) => {
    const prompt = `Go on while ${what}`;
    const gate = await askForHalf(scene, prompt);
    await interrupt(scene.workbench);
    gate.open();
    await isWhole(scene, prompt);
  });

  test(`${what}, and the second half comes when it is back`, async (scene) => {
    const prompt = `Wait until ${what}`;
    const gate = await askForHalf(scene, prompt);
    await interrupt(scene.workbench);
    const chat = await scene.workbench.openChat();
    await chat.answers("streaming").filter({ hasText: "w59" }).waitFor();
    assert.equal(await chat.lastAnswer(), HALF);
    gate.open();
    await isWhole(scene, prompt);
  });
}

test("the sidecar is killed: what it said is kept, and the next prompt is answered", async (scene) => {
  const { workbench, server } = scene;
  const prompt = "Tell me, and be killed";
  await askForHalf(scene, prompt);
  const { chat } = workbench;
  await isStored(server, prompt, `${HALF} `);
  const killed = await theSidecarOf(server.mark);
  process.kill(killed, "SIGKILL");

  await chat.answers("interrupted").waitFor();
  assert.equal(await chat.lastAnswer(), HALF);
  await chat.isReady();
  await chat.ask("Are you there?", "You said: Are you there?");
  assert.notEqual(await theSidecarOf(server.mark), killed);
  assert.deepEqual(
    (await chat.read()).map(({ status, text }) => [status, text]),
    [
      ["complete", prompt],
      ["interrupted", HALF],
      ["complete", "Are you there?"],
      ["complete", "You said: Are you there?"],
    ],
  );
});

test("no interpreter outlives its window", async ({ workbench, server }) => {
  const chat = await workbench.openChat();
  await chat.newConversation();
  await chat.ask("Hello", "You said: Hello");
  const pid = await theSidecarOf(server.mark);
  await workbench.close();
  await eventually(() => !isAlive(pid), "the sidecar of a closed window ends");
  assert.deepEqual(sidecarsOf(server.mark), []);
});
