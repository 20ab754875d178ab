/** The chat's page in a real browser, under the policy that it has in the editor. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";

import { page as pageOf } from "../src/chat/html";
import { installFake } from "./fake";

const ROOT = path.resolve(import.meta.dirname, "..");
const ORIGIN = "http://chat.test";
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const TYPES: Record<string, string> = { ".js": "text/javascript", ".css": "text/css", ".ttf": "font/ttf" };

/** Why tests in a browser cannot run here. In CI they run, and fail. */
export const isMissing = !existsSync(CHROMIUM) && !process.env["CI"];

export function build(): void {
  execFileSync(process.execPath, ["esbuild.mjs"], { cwd: ROOT });
}

export function launch(): Promise<Browser> {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  return chromium.launch({ executablePath: CHROMIUM, args });
}

export interface Opened {
  page: Page;
  /** Addresses that were asked for beside the chat's own files. */
  strangers: string[];
  /** What the policy, or the page itself, complained of. */
  complaints: string[];
}

export async function open(
  browser: Browser,
  options: { messages?: number; conversationId?: string | null; style?: string } = {},
): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 420, height: 800 } });
  const page = await context.newPage();
  const [strangers, complaints]: [string[], string[]] = [[], []];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  await context.route("**/*", (route) => {
    const url = new URL(route.request().url());
    if (url.origin !== ORIGIN) {
      strangers.push(url.href);
      return route.abort();
    }
    if (url.pathname === "/") {
      const sources = { script: "/chat.js", style: "/chat.css", icons: "/codicon.css", cspSource: ORIGIN };
      return route.fulfill({ contentType: "text/html", body: pageOf(sources) });
    }
    const file = path.join(ROOT, "dist", url.pathname);
    if (!existsSync(file)) return route.fulfill({ status: 404 });
    return route.fulfill({ contentType: TYPES[path.extname(file)], body: readFileSync(file) });
  });
  const { messages = 0, conversationId = "c" } = options;
  await page.addInitScript(installFake, { messages, conversationId });
  await page.goto(`${ORIGIN}/`);
  if (options.style) await page.addStyleTag({ content: options.style }).catch(() => undefined);
  return { page, strangers, complaints };
}
