/** Draws `media/icon.png`, the Marketplace's icon, from `media/icon.svg`: `node scripts/icon.mjs`. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const media = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../media");
const glyph = readFileSync(path.join(media, "icon.svg"), "utf8");

const browser = await chromium.launch({
  executablePath: process.env.E2E_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const page = await browser.newPage({ viewport: { width: 256, height: 256 } });
await page.setContent(`
  <style>
    body { margin: 0; }
    div { width: 256px; height: 256px; display: grid; place-items: center; color: #fff;
      border-radius: 56px; background: linear-gradient(145deg, #2f7bd9, #4b3fb5); }
    svg { width: 172px; }
  </style>
  <div>${glyph}</div>`);
await page.screenshot({ path: path.join(media, "icon.png"), omitBackground: true });
await browser.close();
