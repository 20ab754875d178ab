/** A window of VS Code in a real browser. */
import { mkdirSync } from "node:fs";
import path from "node:path";

import { chromium as playwright, errors } from "playwright-core";

import { Chat } from "./chat.mjs";
import { chromium, root } from "./tools.mjs";

/**
 * @typedef {import("playwright-core").Browser} Browser
 * @typedef {import("playwright-core").Page} Page
 * @typedef {import("./server.mjs").Server} Server
 */

const LONGEST = 60_000;

export function startBrowser() {
  return playwright.launch({
    executablePath: chromium() ?? undefined,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"],
  });
}

export class Workbench {
  /** @type {string[]} */
  strayRequests = [];

  /**
   * A new window: nothing of another one is known to it.
   * @param {Browser} browser
   * @param {Server} server
   */
  static async open(browser, server, viewport = { width: 1280, height: 800 }) {
    const context = await browser.newContext({ viewport });
    const page = await context.newPage();
    page.setDefaultTimeout(LONGEST);
    const workbench = new Workbench(page, server);
    await workbench.#stayLocal();
    await page.goto(server.url);
    await workbench.#isThere();
    return workbench;
  }

  /**
   * @param {Page} page
   * @param {Server} server
   */
  constructor(page, server) {
    this.page = page;
    this.server = server;
    this.chat = new Chat(page);
  }

  /** The chat, wherever its view is, with a sidecar that is ready. */
  async openChat() {
    await this.command("Sidecar: Open Chat");
    await this.chat.isReady();
    return this.chat;
  }

  /** By its icon; a second click would hide it. */
  async clickIcon() {
    await this.#tab("Sidecar").click();
  }

  /** Look at something else: the document of the chat is thrown away. */
  async hideChat() {
    await this.#tab("Explorer").click();
    await this.page.locator("iframe.webview").waitFor({ state: "detached" });
  }

  /** To where the terminal is: the view is made anew there. */
  async moveChatToPanel() {
    await this.command("View: Move View");
    await this.pick(/Chat/).click();
    await this.pick("New Panel Entry").click();
    await this.page.locator(".part.panel").getByRole("tab", { name: "Sidecar" }).waitFor();
  }

  /** @param {string} label */
  async command(label) {
    const input = this.page.locator(".quick-input-widget input").first();
    await input.waitFor({ state: "hidden" });
    // The key is lost while the focus is on its way from one frame to another.
    while (!(await input.isVisible())) {
      await this.page.keyboard.press("F1");
      await input.waitFor({ timeout: 1_000 }).catch(isTimeout);
    }
    await input.fill(`>${label}`);
    await this.pick(label).click();
  }

  /** @param {string | RegExp} label */
  pick(label) {
    return this.page.locator(".quick-input-list .monaco-list-row").filter({ hasText: label }).first();
  }

  /**
   * Answer a box that asks for a text.
   * @param {string} text
   */
  async enter(text) {
    const input = this.page.locator(".quick-input-widget input").first();
    await input.fill(text);
    await input.press("Enter");
  }

  /** As a user reloads a window: it is told, and may put things away. */
  async reloadWindow() {
    const loaded = this.page.waitForEvent("load");
    await this.command("Developer: Reload Window");
    await loaded;
    await this.#isThere();
  }

  /** As a browser that crashed: nothing is told to anybody. */
  async crashAndReopen() {
    await this.page.reload();
    await this.#isThere();
  }

  async close() {
    await this.page.context().close();
  }

  /** @param {string} name */
  async keepScreenshot(name) {
    const folder = path.join(root, "e2e/failed");
    mkdirSync(folder, { recursive: true });
    await this.page.screenshot({ path: path.join(folder, `${name.replace(/\W+/g, "-")}.png`) });
  }

  /** @param {string} name */
  #tab(name) {
    return this.page.locator(".activitybar").getByRole("tab", { name: new RegExp(`^${name}`) });
  }

  /** The extension is there too: its item of the status bar is. */
  async #isThere() {
    await this.page.locator('.statusbar [id^="agent-sidecar.agent-sidecar"]').first().waitFor();
  }

  /** Requests that would leave this machine are stopped and written down. */
  async #stayLocal() {
    const context = this.page.context();
    await context.route(
      (url) => url.protocol.startsWith("http") && !isLocal(url.hostname),
      (route) => {
        this.strayRequests.push(route.request().url());
        return route.abort();
      },
    );
    // The browser's half of the key for secrets, which the front of code-server would make.
    await context.route("**/mint-key", (route) =>
      route.fulfill({ contentType: "application/octet-stream", body: Buffer.alloc(32, 7) }),
    );
  }
}

/** @param {unknown} error */
function isTimeout(error) {
  if (!(error instanceof errors.TimeoutError)) throw error;
}

/** @param {string} host */
function isLocal(host) {
  return host === "127.0.0.1" || host === "localhost" || host.endsWith(".localhost");
}
