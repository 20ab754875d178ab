/** Runs inside the extension host, with the real API: what cannot be seen from outside. */
const assert = require("node:assert/strict");
const vscode = require("vscode");

/** @typedef {{ pid(): number | undefined }} Api */

exports.run = async function run() {
  const extension = vscode.extensions.getExtension("agent-sidecar.agent-sidecar");
  assert.ok(extension, "the extension is installed");
  /** @type {Api} */
  const api = await extension.activate();
  await everyCommandIsThere(extension);
  await aStatusHasNoSecrets();
  await aRestartIsAnotherProcess(api);
};

/** @param {import("vscode").Extension<unknown>} extension */
async function everyCommandIsThere(extension) {
  const known = await vscode.commands.getCommands(true);
  const { commands, menus } = extension.packageJSON.contributes;
  const promised = commands.map((/** @type {{ command: string }} */ { command }) => command);
  assert.deepEqual(promised.filter((/** @type {string} */ name) => !known.includes(name)), []);
  const used = Object.values(menus).flat().flatMap(({ command }) => command ?? []);
  assert.deepEqual(used.filter((name) => !promised.includes(name)), []);
}

async function aStatusHasNoSecrets() {
  await vscode.commands.executeCommand("agentSidecar.doctor");
  const document = vscode.window.activeTextEditor?.document;
  const status = JSON.parse(document?.getText() ?? "");
  assert.equal(status.provider.name, "openai");
  assert.ok(!document?.getText().includes(process.env.OPENAI_API_KEY ?? "no key was given"));
}

/** @param {Api} api */
async function aRestartIsAnotherProcess(api) {
  const before = api.pid();
  assert.ok(before);
  await vscode.commands.executeCommand("agentSidecar.restart");
  const after = api.pid();
  assert.ok(after);
  assert.notEqual(after, before);
}
