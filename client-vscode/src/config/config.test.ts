import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

import { asKey, keep, keyOf, SECRET_NAMES, SecretLost, secretsFor, secretsOf, type SecretStore } from "./secrets";
import { chosen, PASSED_ON, settingsOf } from "./settings";

const ROOT = path.resolve(import.meta.dirname, "..", "..");
const json = (name: string) => JSON.parse(readFileSync(path.join(ROOT, name), "utf8"));
const contributes = json("package.json").contributes;
const declared: Record<string, { default?: unknown; type: string | string[]; enum?: unknown[]; markdownDescription: string; scope: string }> =
  contributes.configuration.properties;
const known = json("../schemas/openrpc.json").components.schemas.Settings.properties;
const OURS = ["interpreter", "serverPath"];

test("every setting is passed on, and what is passed on is a setting", () => {
  const names = Object.keys(declared).map((name) => name.replace("agentSidecar.", ""));
  expect(names.filter((name) => !OURS.includes(name)).sort()).toEqual([...PASSED_ON].sort());
});

test.each(PASSED_ON)("%s has the sidecar's default and says what it is", (name) => {
  const here = declared[`agentSidecar.${name}`];
  expect(here?.default ?? null).toEqual(known[name].default ?? null);
  expect(here?.markdownDescription.length).toBeGreaterThan(10);
});

test("what decides what is run, or where a key goes, is not a workspace's to decide", () => {
  const restricted: string[] = json("package.json").capabilities.untrustedWorkspaces.restrictedConfigurations;
  const delicate = Object.keys(declared).filter((name) => /interpreter|serverPath|BaseUrl|awsProfile|awsUseProfile/.test(name));
  for (const name of delicate) {
    expect(restricted).toContain(name);
    expect(declared[name]?.scope).toBe("machine-overridable");
  }
});

test("a workspace that is not trusted decides nothing", () => {
  const inspected = { defaultValue: 1, globalValue: 2, workspaceValue: 3, workspaceFolderValue: 4 };
  expect(chosen(inspected, true)).toBe(4);
  expect(chosen(inspected, false)).toBe(2);
  expect(chosen({ workspaceValue: 3 }, false)).toBeUndefined();
  expect(chosen(undefined, true)).toBeUndefined();
});

test("what was taken back is the default again", () => {
  const all = settingsOf((name) => ({ defaultValue: declared[`agentSidecar.${name}`]?.default }), true);
  expect(all.provider).toBe("offline");
  expect(all.temperature).toBeNull();
  expect(Object.keys(all).sort()).toEqual([...PASSED_ON].sort());
});

class Store implements SecretStore {
  readonly kept = new Map<string, string>();
  constructor(private readonly forgets = false) {}
  async get(key: string) {
    return this.kept.get(key);
  }
  async store(key: string, value: string) {
    if (!this.forgets) this.kept.set(key, value);
  }
  async delete(key: string) {
    this.kept.delete(key);
  }
}

test("a key is kept, and wins over the environment", async () => {
  const store = new Store();
  await keep(store, "openaiApiKey", "kept");
  const secrets = await secretsOf(store, { OPENAI_API_KEY: "env", GEMINI_API_KEY: "gem" });
  expect(secrets).toMatchObject({ openaiApiKey: "kept", geminiApiKey: "gem", anthropicApiKey: null });
  expect(store.kept.has(keyOf("openaiApiKey"))).toBe(true);
});

test("a keyring that forgets is noticed, and the way out is named", async () => {
  await expect(keep(new Store(true), "anthropicApiKey", "k")).rejects.toThrow(SecretLost);
  await expect(keep(new Store(true), "anthropicApiKey", "k")).rejects.toThrow("ANTHROPIC_API_KEY");
  expect(await secretsOf(new Store(), {}, { anthropicApiKey: "k" })).toMatchObject({ anthropicApiKey: "k" });
});

test("what is pasted along with a key is left out; what cannot be one is refused", () => {
  expect(asKey("  sk-1\n")).toBe("sk-1");
  expect(asKey('"sk-1"')).toBe("sk-1");
  expect(asKey("sk 1")).toBeNull();
  expect(asKey("sk-\u200b1")).toBeNull();
  expect(asKey("")).toBeNull();
});

test("a provider's own keys are asked for, all where it has none", () => {
  expect(secretsFor("openai")).toEqual(["openaiApiKey"]);
  expect(secretsFor("bedrock")).toHaveLength(3);
  expect(secretsFor("offline")).toEqual(SECRET_NAMES);
  expect(secretsFor(undefined)).toEqual(SECRET_NAMES);
});

test("every command of a menu, a key or the walkthrough is one", () => {
  const commands = new Set(contributes.commands.map((one: { command: string }) => one.command));
  const text = JSON.stringify([contributes.menus, contributes.keybindings, contributes.walkthroughs]);
  const used = new Set(text.match(/agentSidecar\.(?!chat\b|editor\b|start\b)[a-zA-Z]+/g));
  for (const command of used) expect(commands).toContain(command);
  const source = readFileSync(path.join(ROOT, "src", "commands.ts"), "utf8");
  for (const command of commands) expect(source).toMatch(new RegExp(`^    ${String(command).replace("agentSidecar.", "")}: `, "m"));
});
