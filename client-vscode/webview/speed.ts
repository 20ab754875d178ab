/**
 * How fast the chat's document is, in a real browser: `npm run speed`. Each figure stands beside
 * a floor of the same run, for the machine may be busy.
 */
import type { Page } from "playwright-core";

import { build, launch, open } from "./browser";

const KEYS = 200;
const DELTAS = 2_000;

build();
const browser = await launch();
const results: Record<string, number> = {};

{
  const { page } = await open(browser, { messages: 20_000 });
  await page.locator("[data-message-id=m19999]").waitFor();
  results["newest page of 20,000 after ready, ms"] = await page.evaluate(
    () => (performance.getEntriesByName("first page")[0]?.startTime ?? Number.NaN) - window.fake.readyAt,
  );
  results["messages in the page"] = await page.locator("article").count();
}

/** Milliseconds from a key to the frame that shows it, the slowest of a hundred aside. */
async function typing(page: Page, isStreaming: boolean): Promise<{ p50: number; p99: number; long: number }> {
  return page.evaluate(
    async ({ keys, deltas, isStreaming: streams }) => {
      const area = document.querySelector("textarea");
      if (!area) throw new Error("no composer");
      area.focus();
      let long = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) long += entry.duration;
      }).observe({ type: "longtask" });
      if (streams) window.fake.say({ type: "messageStarted", messageId: "s", turnId: "t", ordinal: 1 });
      const times: number[] = [];
      let offset = 0;
      for (let key = 0; key < keys; key += 1) {
        if (streams) {
          const text = key % 20 ? "some words of an answer, and `code` " : "\n\n```ts\nconst x = 1;\n```\n\n";
          for (let count = 0; count < deltas / keys; count += 1) {
            window.fake.say({ type: "delta", messageId: "s", part: 0, kind: "text", offset, text });
            offset += text.length;
          }
        }
        await new Promise((done) => setTimeout(done));
        const began = performance.now();
        document.execCommand("insertText", false, "x");
        times.push(performance.now() - began);
        await new Promise((done) => requestAnimationFrame(done));
      }
      times.sort((a, b) => a - b);
      const at = (share: number) => times[Math.floor(times.length * share)] ?? 0;
      return { p50: at(0.5), p99: at(0.99), long };
    },
    { keys: KEYS, deltas: DELTAS, isStreaming },
  );
}

for (const isStreaming of [false, true]) {
  const { page } = await open(browser, { messages: 200 });
  await page.locator("[data-message-id=m199]").waitFor();
  const what = isStreaming ? `a key while ${DELTAS} deltas stream` : "a key, nothing else going on";
  const { p50, p99, long } = await typing(page, isStreaming);
  results[`${what}, p50 ms`] = p50;
  results[`${what}, p99 ms`] = p99;
  results[`${what}, long tasks ms`] = long;
}

await browser.close();
for (const [what, value] of Object.entries(results)) console.log(`${what}: ${value.toFixed(1)}`);
