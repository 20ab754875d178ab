/** A real VS Code server with a profile of its own, in which the packaged extension is installed. */
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import { packagePath, thisPlatform } from "../scripts/vsix.mjs";
import { freePort, MARK, sidecarsOf } from "./processes.mjs";
import { installed, pythonWithModels, root } from "./tools.mjs";
import { eventually } from "./waiting.mjs";

const QUIET = {
  "telemetry.telemetryLevel": "off",
  "workbench.startupEditor": "none",
  "workbench.tips.enabled": false,
  "workbench.reduceMotion": "on",
  "workbench.enableExperiments": false,
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "extensions.autoCheckUpdates": false,
  "extensions.autoUpdate": false,
  "update.mode": "none",
  "files.autoSave": "off",
  "chat.disableAIFeatures": true,
  "window.commandCenter": false,
};

/** A hundred others would only be started, and some of them would look for a network. */
const BUILT_IN = ["configuration-editing", "json", "markdown-basics", "python", "theme-defaults", "theme-modern-icons", "theme-seti"];

/**
 * @typedef {object} ServerOptions
 * @property {Record<string, unknown>} [settings] the user's
 * @property {Record<string, unknown>} [folderSettings] of the workspace
 * @property {Record<string, string>} [files] of the workspace, beside a few that are always there
 * @property {boolean} [asksForTrust] open the workspace as one that is not trusted yet
 * @property {string} [tests] a module that runs in the extension host, with the extension's folder
 *   in place of its package
 * @property {Record<string, string>} [env]
 * @property {boolean} [git] the editor's own git extension, and a repository with one commit
 */

export class Server {
  /** Processes of this server have it in their environment. */
  mark = randomUUID();
  /** Everything that is written lies in here. */
  base = mkdtempSync(path.join(tmpdir(), "sidecar-e2e-"));
  workspace = this.folder("workspace");
  data = this.folder("data");
  home = this.folder("home");
  url = "";

  /** @param {ServerOptions} options */
  static async start(options = {}) {
    const server = new Server(options);
    try {
      await server.start();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** @param {ServerOptions} options */
  constructor(options) {
    this.options = options;
    this.settings = {
      ...QUIET,
      "git.enabled": options.git ?? false,
      "agentSidecar.interpreter": pythonWithModels(),
      "agentSidecar.provider": "offline",
      ...options.settings,
    };
    const files = { "hello.py": "def hello():\n    return 'hello'\n", ...options.files };
    for (const [name, text] of Object.entries(files)) this.write(name, text);
    if (options.folderSettings) {
      this.write(".vscode/settings.json", JSON.stringify(options.folderSettings));
    }
    if (options.git) this.commitAll();
    this.saveSettings();
  }

  commitAll() {
    this.git("init", "--quiet");
    this.git("add", ".");
    this.git("-c", "user.name=e2e", "-c", "user.email=e2e@example.test", "commit", "--quiet", "-m", "All of it");
  }

  /** @param {string[]} args */
  git(...args) {
    execFileSync("git", args, { cwd: this.workspace, env: this.env() });
  }

  /** @param {string} name */
  folder(name) {
    const folder = path.join(this.base, name);
    mkdirSync(folder, { recursive: true });
    return folder;
  }

  /**
   * A file of the workspace.
   * @param {string} name
   * @param {string} text
   */
  write(name, text) {
    const file = path.join(this.workspace, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  /** @param {string} name */
  read(name) {
    return readFileSync(path.join(this.workspace, name), "utf8");
  }

  /**
   * Change some settings of the user, as an editor of the file would.
   * @param {Record<string, unknown>} changes
   */
  change(changes) {
    Object.assign(this.settings, changes);
    this.saveSettings();
  }

  saveSettings() {
    // Those of the scope `User` are kept by the browser, which begins with none.
    const file = path.join(this.folder("user/Machine"), "settings.json");
    writeFileSync(file, JSON.stringify(this.settings, null, 2));
  }

  async start() {
    const { options } = this;
    const common = this.commonArguments();
    if (!options.tests) {
      const vsix = packagePath(thisPlatform());
      const install = [...common, "--install-extension", vsix];
      execFileSync(installed.node, install, { env: this.env(), stdio: ["ignore", "pipe", "pipe"] });
    }
    const port = await freePort();
    const log = openSync(path.join(this.base, "server.log"), "a");
    this.process = spawn(
      installed.node,
      [...common, "--host", "127.0.0.1", "--port", String(port), ...this.runArguments()],
      { env: this.env(), cwd: this.workspace, detached: true, stdio: ["ignore", log, log] },
    );
    const origin = `http://127.0.0.1:${port}`;
    await eventually(async () => {
      if (this.process?.exitCode !== null) throw new Error(`The server ended:\n${this.log()}`);
      return fetch(`${origin}/version`).then((response) => response.ok, () => false);
    }, `the server listens at ${origin}`);
    this.url = this.address(origin);
  }

  /** @returns {string[]} */
  commonArguments() {
    return [
      path.join(installed.vscode, "out/server-main.js"),
      "--accept-server-license-terms",
      ...["--telemetry-level", "off"],
      ...["--server-data-dir", this.folder("server")],
      ...["--user-data-dir", this.folder("user")],
      ...["--extensions-dir", this.folder("extensions")],
      ...["--builtin-extensions-dir", this.builtIn()],
    ];
  }

  runArguments() {
    return [
      "--without-connection-token",
      "--disable-telemetry",
      "--disable-update-check",
      "--disable-getting-started-override",
      // The extension host of a window that was lost stays for hours otherwise, and its sidecar.
      ...["--reconnection-grace-time", "2"],
      // Makes a built workbench take an extension's folder and tests from the address. It also
      // shows no notifications, so other tests are better off without.
      ...(this.options.tests ? ["--enable-smoke-test-driver"] : []),
      ...(this.options.asksForTrust ? [] : ["--disable-workspace-trust"]),
    ];
  }

  builtIn() {
    const folder = path.join(this.base, "builtin");
    for (const name of [...BUILT_IN, ...(this.options.git ? ["git", "git-base"] : [])]) {
      const link = path.join(this.folder("builtin"), name);
      try {
        symlinkSync(path.join(installed.vscode, "extensions", name), link);
      } catch (error) {
        if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
      }
    }
    return folder;
  }

  env() {
    const strangers = /^(VSCODE_|CODE_SERVER|ELECTRON_|PYTHON|AWS_|.*_API_KEY$)/;
    const inherited = Object.entries(process.env).filter(([name]) => !strangers.test(name));
    return {
      ...Object.fromEntries(inherited),
      HOME: this.home,
      XDG_DATA_HOME: this.data,
      XDG_CONFIG_HOME: this.folder("config"),
      [MARK]: this.mark,
      ...this.options.env,
    };
  }

  /** @param {string} origin */
  address(origin) {
    const url = new URL(origin);
    url.searchParams.set("folder", this.workspace);
    if (this.options.tests) {
      const remote = (/** @type {string} */ file) => `vscode-remote://${url.host}${file}`;
      const payload = [
        ["extensionDevelopmentPath", remote(root)],
        ["extensionTestsPath", remote(this.options.tests)],
      ];
      url.searchParams.set("payload", JSON.stringify(payload));
    }
    return url.href;
  }

  log() {
    return readFileSync(path.join(this.base, "server.log"), "utf8");
  }

  /** End everything that was started here, and look that nothing is left. */
  async stop() {
    const server = this.process;
    if (server?.pid && server.exitCode === null) {
      const ended = new Promise((resolve) => server.once("exit", resolve));
      process.kill(-server.pid, "SIGTERM");
      const timer = setTimeout(() => process.kill(-(server.pid ?? 0), "SIGKILL"), 5_000);
      await ended;
      clearTimeout(timer);
    }
    await eventually(() => sidecarsOf(this.mark).length === 0, "no sidecar outlives its server");
    if (!process.env.E2E_KEEP) rmSync(this.base, { recursive: true, force: true, maxRetries: 5 });
  }
}
