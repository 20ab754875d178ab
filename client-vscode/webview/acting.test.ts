/** What an agent does, as a person sees it and has a say in it, in a real browser. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";

import type { Approval, UndoneFile } from "../src/protocol";
import { build, isMissing, launch, open } from "./browser";

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
  const card = (page: Page) => page.getByRole("group", { name: "Approval" });
  const question = (changes: Partial<Approval>): Approval => ({
    ...{ approvalId: "a", conversationId: "c", turnId: "t", toolCallId: "x", tool: "run", title: "Run in /w" },
    ...{ text: "make test", contentHash: "h", state: "pending", requestedAt: 0, expiresAt: 0 },
    ...changes,
  });
  const ask = (page: Page, changes: Partial<Approval>) =>
    page.evaluate((approval) => window.fake.state({ approvals: [approval] }), question(changes));

  test("always is offered where it is to be had, with exactly what it means", async () => {
    const { page } = await open(browser);
    await ask(page, {});
    await card(page).waitFor();
    const always = card(page).getByRole("button", { name: "Always allow in this workspace" });
    expect(await always.count()).toBe(0);
    await ask(page, { always: [{ tool: "run", argv: ["make", "a b"], root: "/w" }] });
    await always.waitFor();
    expect(await always.getAttribute("title")).toContain("\nmake 'a b'\nin /w");
    await always.click();
    await expect.poll(() => asked(page, "approval/respond")).toEqual([
      { approvalId: "a", contentHash: "h", decision: "allow", always: true },
    ]);
  });

  test("a protected file is marked", async () => {
    const { page } = await open(browser);
    await ask(page, { isProtected: true });
    await card(page).getByText("Protected file").waitFor();
  });

  test("a plan is a numbered list, and text", async () => {
    const { page, strangers } = await open(browser);
    const evil = "<img src=http://evil.test/x onerror=window.pwned=1>";
    await ask(page, { tool: "plan", title: "Carry out this plan", text: `Why\n\n1. Read\n2. ${evil}\n\nVerify with: make` });
    await expect.poll(() => card(page).locator("ol > li").allTextContents()).toEqual(["Read", evil]);
    expect(await card(page).locator("code").textContent()).toBe("make");
    await card(page).getByRole("button", { name: "Accept the plan" }).click();
    await expect.poll(() => asked(page, "approval/respond")).toMatchObject([{ decision: "allow" }]);
    expect(strangers).toEqual([]);
  });

  test("what a running tool puts out is seen until its result is there", async () => {
    const { page } = await open(browser);
    await page.getByRole("log").waitFor();
    await page.evaluate(() => {
      window.fake.say({ type: "messageStarted", messageId: "n", turnId: "t", ordinal: 1 });
      window.fake.say({ type: "toolStarted", messageId: "n", turnId: "t", toolCallId: "x", name: "run", part: 0, arguments: { command: "make" } });
      const text = Array.from({ length: 50 }, (_, line) => `line ${line} <b>\n`).join("");
      window.fake.post({ type: "output", conversationId: "c", toolCallId: "x", text });
    });
    const live = page.getByLabel("Output so far");
    await live.waitFor();
    expect((await live.textContent())?.trim().split("\n")).toHaveLength(12);
    expect(await live.textContent()).toContain("line 49 <b>");
    await expect.poll(() => live.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)).toBeLessThan(2);
    await page.evaluate(() =>
      window.fake.say({ type: "toolFinished", messageId: "n", turnId: "t", toolCallId: "x", part: 1, content: "done", isError: false }),
    );
    await live.waitFor({ state: "detached" });
  });

  test("how far a turn is, while it runs", async () => {
    const { page } = await open(browser, { messages: 2 });
    await page.evaluate(() =>
      window.fake.state({ progress: { c: { turnId: "t", done: 2, total: 5, label: "Mend the parser" } } }),
    );
    await page.getByText("2/5 Mend the parser").waitFor();
    expect(await page.locator("progress").getAttribute("max")).toBe("5");
    await page.evaluate(() => window.fake.state({ progress: {} }));
    await page.getByText("2/5 Mend the parser").waitFor({ state: "detached" });
  });

  const file = (changes: Partial<UndoneFile>): UndoneFile => ({ path: "a.txt", root: "/w", action: "restore", state: "ready", diff: "", ...changes });

  async function rewinding(files: UndoneFile[], messageId = "m2") {
    const { page } = await open(browser, { messages: 4 });
    await page.evaluate((found) => {
      window.fake.answers["conversation/rewind"] = ({ preview }) => ({ hidden: ["m2", "m3"], revision: 1, preview, files: found });
    }, files);
    await page.locator(`[data-message-id=${messageId}]`).hover();
    await page.locator(`[data-message-id=${messageId}]`).getByRole("button", { name: "Rewind to here" }).click();
    const dialog = page.getByRole("dialog", { name: "Rewind" });
    await dialog.getByText("2 messages, from this one on").waitFor();
    return { page, dialog };
  }

  test("going back shows first what it would do, and does what is chosen", async () => {
    const { page, dialog } = await rewinding([file({ diff: "--- a\n+++ b\n-new\n+old" }), file({ path: "b.txt", action: "delete" })]);
    const rows = dialog.getByRole("list", { name: "Changed files" }).getByRole("listitem");
    const [first, second] = await rows.allTextContents();
    expect([first, second]).toEqual([
      expect.stringContaining("a.txt will be put back"),
      expect.stringContaining("b.txt will be deleted: the agent made it"),
    ]);
    await rows.first().locator("summary").click();
    await rows.first().locator(".added").getByText("+old").waitFor();
    await dialog.getByRole("button", { name: "Rewind conversation and files" }).click();
    await dialog.waitFor({ state: "detached" });
    const common = { conversationId: "c", toMessageId: "m1" };
    expect(await asked(page, "conversation/rewind")).toEqual([
      { ...common, preview: true, files: true, force: false },
      { ...common, preview: false, files: true, force: false },
    ]);
    await expect.poll(() => message(page).inputValue()).toContain("Message 2");
  });

  test("the conversation alone, from the first prompt on", async () => {
    const { page, dialog } = await rewinding([file({})], "m0");
    await dialog.getByRole("button", { name: "Rewind conversation only" }).click();
    await dialog.waitFor({ state: "detached" });
    expect((await asked(page, "conversation/rewind")).at(-1)).toEqual({ conversationId: "c", toMessageId: null, preview: false, files: false, force: false });
  });

  test("what somebody else changed is undone only when that is wanted", async () => {
    const { page, dialog } = await rewinding([file({ state: "conflict" }), file({ path: "c.txt", state: "same" })]);
    expect(await dialog.getByRole("button", { name: "Rewind conversation and files" }).count()).toBe(0);
    await dialog.getByText("was changed since by somebody else").waitFor();
    await dialog.getByText("holds already what it held before").waitFor();
    await dialog.getByRole("button", { name: "Rewind anyway" }).click();
    await dialog.waitFor({ state: "detached" });
    expect((await asked(page, "conversation/rewind")).at(-1)).toMatchObject({ files: true, force: true });
  });

  test("a conflict that comes in between is said, and looked at again", async () => {
    const { page, dialog } = await rewinding([file({})]);
    await page.evaluate((conflict) => {
      window.fake.answers["conversation/rewind"] = ({ preview }) => {
        if (preview) return { hidden: ["m2", "m3"], revision: 1, preview, files: [conflict] };
        throw { code: -32061, message: "Changed since by somebody else: a.txt. Nothing was undone.", hint: "Look with `preview`; `force` puts them back all the same." };
      };
    }, file({ state: "conflict" }));
    await dialog.getByRole("button", { name: "Rewind conversation and files" }).click();
    await expect.poll(() => dialog.getByRole("alert").textContent()).toMatch(/Changed since by somebody else: a\.txt\. Nothing was undone\.$/);
    await dialog.getByRole("button", { name: "Rewind anyway" }).waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
  });

  test("the dialog keeps the focus, and Escape leaves it", async () => {
    const { page, dialog } = await rewinding([file({ diff: "+x" })]);
    for (let count = 0; count < 12; count += 1) {
      await page.keyboard.press("Tab");
      expect(await dialog.evaluate((box) => box.contains(document.activeElement))).toBe(true);
    }
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    expect(await asked(page, "conversation/rewind")).toHaveLength(1);
  });

  test("in build mode a plan comes first, unless that is turned off", async () => {
    const { page } = await open(browser);
    await page.getByRole("combobox", { name: "Mode" }).selectOption("build");
    const toggle = page.getByRole("checkbox", { name: "Plan first" });
    expect(await toggle.isChecked()).toBe(true);
    await message(page).fill("Mend it");
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "build/start")).toMatchObject([{ conversationId: "c", task: "Mend it" }]);
    await toggle.uncheck();
    await message(page).fill("At once");
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "message/enqueue")).toMatchObject([{ input: "At once" }]);
    await page.getByRole("combobox", { name: "Mode" }).selectOption("chat");
    await toggle.waitFor({ state: "detached" });
  });

  test("a persona is chosen, and talked to", async () => {
    const { page } = await open(browser);
    await page.getByRole("button", { name: "Persona" }).click();
    await page.getByRole("menuitemradio", { name: "Security: Looks for what can be abused" }).click();
    await page.locator(".persona").getByText("Security").waitFor();
    await message(page).fill("Is it safe?");
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "message/enqueue")).toMatchObject([{ input: "Is it safe?", personaId: "security", isPersonaChat: true }]);
    await page.getByRole("button", { name: "Persona" }).click();
    await page.getByRole("menuitemradio", { name: "The agent itself" }).click();
    await message(page).fill("And you?");
    await message(page).press("Enter");
    await expect.poll(() => asked(page, "message/enqueue")).toHaveLength(2);
    expect((await asked(page, "message/enqueue"))[1]).not.toHaveProperty("personaId");
  });

  test("the places that reviewers name can be gone to", async () => {
    const { page, complaints } = await open(browser);
    await page.evaluate(() => {
      const finding = { severity: "major", message: "<b>wrong</b>", path: "a.py", line: 7 };
      const reviews = [{ personaId: "x", name: "Ada", findings: [finding, { severity: "note", message: "no place" }] }];
      const parts = [{ kind: "feedback", reviews }, { kind: "text", text: "# Report" }];
      window.fake.say({ type: "messageStarted", messageId: "n", turnId: "t", ordinal: 1 });
      window.fake.say({ type: "messageCompleted", messageId: "n", message: { messageId: "n", ordinal: 1, role: "assistant", status: "complete", parts, createdAt: 0 } });
    });
    await page.getByText("1 place to look at").click();
    await page.getByRole("button", { name: "a.py:7" }).click();
    await expect.poll(() => asked(page, "editor/open")).toEqual([{ path: "a.py", line: 7 }]);
    await page.getByText("<b>wrong</b>").waitFor();
    expect(complaints).toEqual([]);
  });
});
