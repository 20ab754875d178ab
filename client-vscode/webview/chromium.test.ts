/** The document in a real browser: what hostile words do there, and what a person does. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";

import { build, isMissing, launch, open } from "./browser";
import { HOSTILE } from "./hostile";

describe.skipIf(isMissing)("in Chromium", () => {
  let browser: Browser;
  beforeAll(async () => {
    build();
    browser = await launch();
  });
  afterAll(() => browser?.close());

  const asked = (page: Page, method: string) =>
    page.evaluate((wanted) => window.fake.asked.filter((one) => one.method === wanted).map((one) => one.params), method);
  const message = (page: Page) => page.getByRole("textbox", { name: "Message" });

  test("no hostile text runs a script or asks for anything", async () => {
    const { page, strangers, complaints } = await open(browser);
    await page.getByRole("log").waitFor();
    await page.evaluate((texts) => {
      texts.forEach((text, index) => {
        const messageId = `h${index}`;
        const parts = [
          { kind: "text", text },
          { kind: "thinking", text },
          { kind: "toolCall", toolCallId: "c", name: text, arguments: { text } },
          { kind: "toolResult", toolCallId: "c", content: text },
          { kind: "error", type: text, message: text, hint: text },
          { kind: "feedback", reviews: [{ personaId: "p", name: text, findings: [{ severity: "note", message: text, path: text, line: 1 }] }] },
        ];
        window.fake.say({ type: "messageStarted", messageId, turnId: "t", ordinal: index });
        const completed = { messageId, ordinal: index, role: "assistant", status: "complete", parts, createdAt: 0 };
        window.fake.say({ type: "messageCompleted", messageId, message: completed });
      });
    }, HOSTILE);
    await page.locator(`[data-message-id=h${HOSTILE.length - 1}]`).waitFor();
    // Everything that can be opened is opened, and everything that looks like a link is clicked.
    await page.evaluate(() => {
      for (const details of document.querySelectorAll("details")) details.open = true;
      for (const link of document.querySelectorAll<HTMLElement>("article a")) link.click();
    });
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    expect(await page.evaluate(() => window.pwned)).toBeUndefined();
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
    expect(page.url()).toBe("http://chat.test/");
    const opened = await asked(page, "editor/openLink");
    expect(opened.length).toBeGreaterThan(0);
    for (const { url } of opened) expect(url).toMatch(/^(https?|mailto):/i);
    for (const { path } of await asked(page, "editor/open")) {
      expect(path).not.toMatch(/^(javascript|data|command|vscode|vbscript|blob):/i);
    }
    expect(await page.getByRole("group", { name: "Approval" }).count()).toBe(0);
  });

  test("a title, a file's name and a question are text as well", async () => {
    const { page, strangers, complaints } = await open(browser);
    const hostile = "<img src=http://evil.test/x onerror=window.pwned=1>";
    await page.evaluate((text) => {
      window.fake.say({ type: "titleChanged", title: text });
      const approval = { approvalId: "a", conversationId: "c", turnId: "t", toolCallId: "x", tool: "run", title: text, text, contentHash: "h", state: "pending", requestedAt: 0, expiresAt: 0 } as const;
      const progress = { c: { turnId: "t", done: 0, total: 1, label: text } };
      window.fake.post({ type: "output", conversationId: "c", toolCallId: text, text });
      window.fake.state({ approvals: [approval], progress, editor: { path: text, selection: true }, model: text, degraded: text });
    }, hostile);
    await expect.poll(() => page.getByRole("group", { name: "Approval" }).locator("pre").textContent()).toContain(hostile);
    await page.getByRole("button", { name: "Allow once" }).click();
    await expect.poll(() => asked(page, "approval/respond")).toEqual([{ approvalId: "a", contentHash: "h", decision: "allow" }]);
    expect(await page.evaluate(() => window.pwned)).toBeUndefined();
    expect([strangers, complaints]).toEqual([[], []]);
  });

  test("a prompt is sent once, and again under the same key when the sidecar has come back", async () => {
    const { page } = await open(browser);
    await message(page).fill("hello");
    await page.evaluate(() => window.fake.state({ connection: { kind: "starting", detail: "…" } }));
    await message(page).press("Enter");
    await page.getByText("sent when the sidecar is back").waitFor();
    expect(await asked(page, "message/enqueue")).toEqual([]);
    await page.evaluate(() => window.fake.state({ connection: { kind: "ready" }, instance: 2 }));
    await expect.poll(() => asked(page, "message/enqueue")).toHaveLength(1);
    await page.evaluate(() => window.fake.state({ connection: { kind: "ready" }, instance: 3 }));
    await expect.poll(() => asked(page, "conversation/subscribe")).toHaveLength(3);
    expect(await asked(page, "message/enqueue")).toHaveLength(1);
  });

  test("what is typed while a composition is open is not sent; Shift+Enter is a new line", async () => {
    const { page } = await open(browser);
    await message(page).fill("one");
    await message(page).press("Shift+Enter");
    await message(page).pressSequentially("two");
    await message(page).evaluate((area) =>
      area.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true })),
    );
    expect(await asked(page, "message/enqueue")).toEqual([]);
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "message/enqueue")).toMatchObject([{ input: "one\ntwo" }]);
    expect(await message(page).inputValue()).toBe("");
  });

  test("a file is found by its letters and goes along", async () => {
    const { page } = await open(browser);
    await message(page).pressSequentially("look at @mai");
    await page.getByRole("listbox", { name: "Files" }).getByRole("option", { name: "src/main.ts" }).waitFor();
    await message(page).press("Enter");
    await page.getByRole("list", { name: "Context" }).getByText("main.ts").waitFor();
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "message/enqueue")).toMatchObject([
      { input: "look at", contextFiles: [{ uri: "file:///w/src/main.ts" }] },
    ]);
  });

  test("reading older messages keeps its place while newer words arrive, and 10,000 stay few in the page", async () => {
    const { page } = await open(browser, { messages: 10_000 });
    const log = page.getByRole("log");
    await page.locator("[data-message-id=m9999]").waitFor();
    for (let count = 0; count < 12; count += 1) {
      const first = await page.locator("article").first().getAttribute("data-message-id");
      await page.getByRole("button", { name: "Show earlier messages" }).click();
      await expect.poll(() => page.locator("article").first().getAttribute("data-message-id")).not.toBe(first);
    }
    expect(await page.locator("article").count()).toBeLessThanOrEqual(300);
    await page.getByRole("button", { name: "Jump to latest" }).click();
    await page.locator("[data-message-id=m9999]").waitFor();
    const below = () => log.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight);
    await expect.poll(below).toBeLessThan(2);
    await page.evaluate(() => {
      window.fake.say({ type: "messageStarted", messageId: "n", turnId: "t", ordinal: 10_000 });
      window.fake.say({ type: "delta", messageId: "n", part: 0, kind: "text", offset: 0, text: "word ".repeat(500) });
    });
    await page.locator("[data-message-id=n] .text").waitFor();
    await expect.poll(below).toBeLessThan(2);
    await log.evaluate((box) => box.scrollTo(0, box.scrollHeight / 2));
    await page.getByRole("button", { name: "Jump to latest" }).waitFor();
    const at = await log.evaluate((box) => box.scrollTop);
    await page.evaluate(() =>
      window.fake.say({ type: "delta", messageId: "n", part: 0, kind: "text", offset: 2500, text: "more ".repeat(500) }),
    );
    await expect.poll(() => page.locator("[data-message-id=n]").textContent()).toContain("more");
    expect(await log.evaluate((box) => box.scrollTop)).toBe(at);
  });

  test("all of it can be reached with the keyboard, and everything has a name", async () => {
    const { page } = await open(browser, { messages: 4 });
    await page.locator("[data-message-id=m3]").waitFor();
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>("button, input, textarea, select")]
        .filter((one) => !(one.getAttribute("aria-label") || one.textContent?.trim()))
        .map((one) => one.outerHTML),
    );
    expect(nameless).toEqual([]);
    await page.getByRole("button", { name: "Conversations" }).focus();
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe("Search conversations");
    await page.keyboard.press("Escape");
    await message(page).waitFor();
    await page.getByRole("button", { name: "More actions" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("menu").waitFor();
    await page.keyboard.press("ArrowDown");
    await expect.poll(() => page.evaluate(() => document.activeElement?.textContent)).toBe("Fork");
    await page.keyboard.press("Escape");
    expect(await page.getByRole("menu").count()).toBe(0);
  });
});
