/** The commands, as the palette, menus and keys have them. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import * as vscode from "vscode";

import { showAudit } from "./acting/audit";
import { getFeedback } from "./acting/feedback";
import { managePersonas } from "./acting/personas";
import { manageRules } from "./acting/rules";
import type { Hub } from "./chat/hub";
import { asError } from "./chat/link";
import { VIEW, type ChatViews } from "./chat/views";
import { asKey, keep, keyOf, SecretLost, SECRETS, secretsFor, type SecretName } from "./config/secrets";
import { fileContext, selectionContext, type LastEditor } from "./editor/context";
import type { ContextFile, SecretsPatch } from "./protocol";
import type { ToView } from "./shared/messages";
import { candidates } from "./sidecar/candidates";
import { makeEnvironment } from "./sidecar/environment";
import { search } from "./sidecar/interpreters";
import { environment } from "./sidecar/launch";
import { PROVIDERS } from "./sidecar/models";
import type { Sidecar } from "./sidecar/sidecar";

export interface CommandHost {
  hub: Hub;
  views: ChatViews;
  sidecar: Sidecar;
  editor: LastEditor;
  secrets: vscode.SecretStorage;
  /** Keys that the machine could not keep. */
  passing: SecretsPatch;
  /** The folders of the extension itself and of what it keeps. */
  extensionPath: string;
  storagePath: string;
  log(message: string): void;
  showLog(): void;
  /** Give the sidecar settings and keys as they are now. */
  update(): Promise<void>;
}

type Letter = Extract<ToView, { type: "compose" }>;

export function registerCommands(host: CommandHost): vscode.Disposable[] {
  const commands: Record<string, (...args: never[]) => unknown> = {
    open: () => openChat(),
    newConversation: () => compose(host, { newConversation: true }),
    openInEditor: () => host.views.open(host.hub.shown),
    ask: () => compose(host, { files: selection(host) }),
    explain: () => compose(host, { ...aboutSelection(host, "Explain this."), send: true }),
    fix: () => compose(host, { ...aboutSelection(host, "Find what is wrong here and fix it."), mode: "build" }),
    reviewFile: () =>
      compose(host, {
        text: "Review this file.",
        files: file(host),
        mode: "feedback",
        newConversation: true,
        send: true,
      }),
    sendToConversation: () => compose(host, { files: selection(host) }),
    feedback: (uri?: vscode.Uri, uris?: vscode.Uri[]) =>
      getFeedback({ hub: host.hub, editor: host.editor, show: (id) => show(host, id) }, uri, uris),
    managePersonas: () => managePersonas(host.hub),
    manageRules: () => manageRules(host.hub),
    showAudit: () => showAudit(host.hub),
    stop: () => stop(host),
    setMode: () => setMode(host),
    setKey: (secret?: SecretName) => setKey(host, secret),
    removeKey: () => removeKey(host),
    pickModel: () => pickModel(host),
    installModels: () => installModels(host),
    pickInterpreter: () => pickInterpreter(host),
    restart: () => host.sidecar.restart(),
    showLog: () => host.showLog(),
    doctor: () => doctor(host),
  };
  return Object.entries(commands).map(([name, run]) =>
    vscode.commands.registerCommand(`agentSidecar.${name}`, run as (...args: unknown[]) => unknown),
  );
}

async function openChat(): Promise<void> {
  await vscode.commands.executeCommand(`${VIEW}.focus`);
}

async function compose(host: CommandHost, letter: Partial<Letter>): Promise<void> {
  const defaults = { text: "", files: [], send: false, newConversation: false, mode: null };
  const isThere = host.hub.deliver({ type: "compose", ...defaults, ...letter });
  if (!isThere) await openChat();
}

async function show(host: CommandHost, conversationId: string): Promise<void> {
  if (!host.hub.deliver({ type: "show", conversationId })) await openChat();
}

function selection(host: CommandHost): ContextFile[] {
  const editor = host.editor.current;
  if (!editor) return [];
  return [editor.selection.isEmpty ? fileContext(editor) : selectionContext(editor)];
}

function file(host: CommandHost): ContextFile[] {
  const editor = host.editor.current;
  return editor ? [fileContext(editor)] : [];
}

function aboutSelection(host: CommandHost, text: string): Partial<Letter> {
  return { text, files: selection(host) };
}

async function stop({ hub }: CommandHost): Promise<void> {
  const conversationId = hub.shown;
  if (conversationId) await hub.request("agent/cancel", { conversationId });
}

async function setMode({ hub }: CommandHost): Promise<void> {
  const conversationId = hub.shown;
  if (!conversationId) {
    void vscode.window.showInformationMessage("Open a conversation first.");
    return;
  }
  const modes = [
    { label: "chat", description: "Answers questions; changes nothing" },
    { label: "build", description: "Changes files and runs commands, after asking" },
    { label: "feedback", description: "Reviews files" },
  ] as const;
  const picked = await vscode.window.showQuickPick(modes, { title: "Mode of this conversation" });
  if (picked) await hub.request("conversation/setMode", { conversationId, mode: picked.label });
}

async function setKey(host: CommandHost, secret?: SecretName): Promise<void> {
  const name = secret && secret in SECRETS ? secret : await pickSecret("Which key?");
  if (!name) return;
  const pasted = await vscode.window.showInputBox({
    title: SECRETS[name].label,
    prompt: "It is kept by the editor's secret storage and given to the sidecar only.",
    password: true,
    ignoreFocusOut: true,
    validateInput: (text) => (text && !asKey(text) ? "A key has no blanks and only plain letters." : null),
  });
  const value = pasted && asKey(pasted);
  if (!value) return;
  try {
    delete host.passing[name];
    await keep(host.secrets, name, value);
  } catch (error) {
    if (!(error instanceof SecretLost)) throw error;
    host.passing[name] = value;
    void vscode.window.showWarningMessage(error.message);
  }
  await host.update();
}

async function removeKey(host: CommandHost): Promise<void> {
  const name = await pickSecret("Which key should be forgotten?");
  if (!name) return;
  delete host.passing[name];
  await host.secrets.delete(keyOf(name));
  await host.update();
}

/** Of the provider that is chosen: without its key the sidecar still uses the one before. */
async function pickSecret(title: string): Promise<SecretName | undefined> {
  const names = secretsFor(vscode.workspace.getConfiguration("agentSidecar").get("provider"));
  if (names.length === 1) return names[0];
  const items = names.map((name) => ({ label: SECRETS[name].label, name }));
  return (await vscode.window.showQuickPick(items, { title }))?.name;
}

/** Provider, then model; both are settings, so that they are kept and seen like any other. */
async function pickModel({ hub }: CommandHost): Promise<void> {
  const settings = vscode.workspace.getConfiguration("agentSidecar");
  const items = PROVIDERS.map((provider) => ({ ...provider, description: provider.detail }));
  const current = hub.currentSettings?.provider;
  const picked = await vscode.window.showQuickPick(
    items.map(({ label, description, id }) => ({ label, description, id, picked: id === current })),
    { title: "Who answers?", placeHolder: current },
  );
  const provider = PROVIDERS.find((known) => known.id === picked?.id);
  if (!provider) return;
  if (provider.model) {
    const model = await vscode.window.showInputBox({
      title: `Model of ${provider.label}`,
      value: settings.get<string>(provider.model),
      ignoreFocusOut: true,
    });
    if (model === undefined) return;
    await settings.update(provider.model, model || undefined, vscode.ConfigurationTarget.Global);
  }
  await settings.update("provider", provider.id, vscode.ConfigurationTarget.Global);
}

/** Into an environment of the extension's own; nothing of the user's is changed. */
async function installModels(host: CommandHost): Promise<void> {
  const answer = await vscode.window.showInformationMessage(
    "Install the libraries that talk to models?",
    { modal: true, detail: "About 150 MB, with pip, into an environment of the extension's own." },
    "Install",
  );
  if (answer !== "Install") return;
  const { found } = await search(candidates({ setting: "", storage: null, log: host.log }));
  if (!found) throw new Error("No Python was found to install them with.");
  const text = await readFile(path.join(host.extensionPath, "bundle", "models.txt"), "utf8");
  const requirements = text.split("\n").filter((line) => line && !line.startsWith("#"));
  const progress = { location: vscode.ProgressLocation.Notification, title: "Libraries for models", cancellable: true };
  await vscode.window.withProgress(progress, async ({ report }, token) => {
    const stop = new AbortController();
    token.onCancellationRequested(() => stop.abort());
    await makeEnvironment({
      python: found.command,
      folder: path.join(host.storagePath, "venv"),
      requirements,
      env: environment(process.env),
      signal: stop.signal,
      onLine: (line) => {
        host.log(line);
        report({ message: line.slice(0, 80) });
      },
    });
  });
  const settings = vscode.workspace.getConfiguration("agentSidecar");
  if (settings.inspect("interpreter")?.globalValue) {
    await settings.update("interpreter", undefined, vscode.ConfigurationTarget.Global);
  }
  await host.sidecar.restart();
}

async function pickInterpreter(host: CommandHost): Promise<void> {
  const picked = await vscode.window.showOpenDialog({
    title: "Python 3.11 or newer that runs the sidecar",
    openLabel: "Use this Python",
    canSelectMany: false,
  });
  if (!picked?.[0]) return;
  const settings = vscode.workspace.getConfiguration("agentSidecar");
  await settings.update("interpreter", picked[0].fsPath, vscode.ConfigurationTarget.Global);
  await host.sidecar.restart();
}

/** What a person, or a bug report, wants to know of it. No key and no text is in it. */
async function doctor({ hub, sidecar }: CommandHost): Promise<void> {
  const status = await hub.request("sidecar/status", {}).catch((error: unknown) => ({ error: asError(error) }));
  const editor = `${vscode.env.appName} ${vscode.version}, ${process.platform} ${process.arch}`;
  const content = JSON.stringify({ editor, connection: sidecar.connection, ...status }, null, 2);
  const document = await vscode.workspace.openTextDocument({ language: "json", content });
  await vscode.window.showTextDocument(document);
}
