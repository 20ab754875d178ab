/** A long conversation opens as fast as a short one. */
import assert from "node:assert/strict";

import { importLong } from "./store.mjs";
import { suite } from "./suite.mjs";

const COUNT = 20_000;
const MOST_MILLISECONDS = 300;
const test = suite();

test("of 20,000 messages the newest are there within 300 ms", async ({ workbench, server, t }) => {
  importLong(server, "A long story", COUNT);
  let chat = await workbench.openChat();
  await chat.openConversations();
  await chat.conversation("A long story").click();
  await chat.isShown(`Message number ${COUNT - 1}.`);
  await workbench.hideChat();

  await workbench.page.addInitScript(watchFirstPage);
  chat = await workbench.openChat();
  await chat.isShown(`Message number ${COUNT - 1}.`);
  const took = await workbench.page.frameLocator("iframe.webview.ready").locator("html").evaluate(
    () => performance.measure("newest page", "ready", "newest").duration,
  );
  t.diagnostic(`the newest page was there after ${took.toFixed(0)} ms`);
  assert.ok(took < MOST_MILLISECONDS, `it took ${took.toFixed(0)} ms`);
  const shown = await chat.messages.count();
  assert.ok(shown > 0 && shown < 200, `only a page of them is in the document, and not ${shown}`);
});

/** Runs in the frame around the document: marks when that says it is there, and when it has a message. */
function watchFirstPage() {
  const look = () => {
    const inner = document.querySelector("iframe")?.contentDocument;
    if (inner?.querySelector("article[data-message-id]")) performance.mark("newest");
    else requestAnimationFrame(look);
  };
  const post = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (/** @type {any} */ message, /** @type {any[]} */ ...rest) {
    if (message?.data?.message?.type === "ready") {
      performance.mark("ready");
      look();
    }
    return Reflect.apply(post, this, [message, ...rest]);
  };
}
