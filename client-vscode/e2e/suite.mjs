/** What the test files share: one server, one browser and one model for a file, a window for a test. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Model } from "./model.mjs";
import { Server } from "./server.mjs";
import { startBrowser, Workbench } from "./workbench.mjs";

/**
 * @typedef {import("./server.mjs").ServerOptions} ServerOptions
 * @typedef {{ workbench: Workbench, model: Model, server: Server, open: () => Promise<Workbench>, t: import("node:test").TestContext }} Scene
 */

/** What VS Code itself would ask of its gallery. */
const NOISE = /^https?:\/\/(open-vsx\.org|[\w.-]*\.?vscode-cdn\.net|[\w.-]*vscode-unpkg\.net)\//;

/**
 * A suite on one server. The sidecar asks the fake model, unless the settings say otherwise.
 * @param {ServerOptions} [options]
 */
export function suite(options = {}) {
  /** @type {{ model?: Model, server?: Server, browser?: import("playwright-core").Browser }} */
  const parts = {};

  before(async () => {
    const model = (parts.model = await Model.start());
    parts.browser = await startBrowser();
    parts.server = await Server.start({ ...options, settings: { ...model.settings, ...options.settings } });
  });
  after(async () => {
    await parts.browser?.close();
    await parts.model?.stop();
    await parts.server?.stop();
  });

  /**
   * @param {string} name
   * @param {(scene: Scene) => Promise<void>} body
   */
  return (name, body) =>
    test(name, async (t) => {
      const { model, server, browser } = parts;
      assert.ok(model && server && browser);
      /** @type {Workbench[]} */
      const windows = [];
      const open = async () => {
        const window = await Workbench.open(browser, server);
        windows.push(window);
        return window;
      };
      try {
        await body({ workbench: await open(), model, server, open, t });
        for (const window of windows) assert.deepEqual(strays(window), [], "nothing leaves this machine");
      } catch (error) {
        for (const [number, window] of windows.entries()) await window.keepScreenshot(`${name} ${number}`);
        throw error;
      } finally {
        model.openAll();
        for (const window of windows) await window.close();
      }
    });
}

/** @param {Workbench} window */
function strays(window) {
  return window.strayRequests.filter((url) => !NOISE.test(url));
}
