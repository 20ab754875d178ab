/** Puts the parts together. Everything is registered before the sidecar is even looked for. */
import { randomUUID } from "node:crypto";
import os from "node:os";
import * as vscode from "vscode";

import { Hub } from "./chat/hub";
import { registerLanguageModel } from "./chat/languageModel";
import { Participant } from "./chat/participant";
import { ChatViews, VIEW } from "./chat/views";
import { registerCommands } from "./commands";
import { secretsOf } from "./config/secrets";
import { chosen, settingsOf } from "./config/settings";
import { update } from "./config/update";
import { editorActions } from "./editor/actions";
import { editorState, LastEditor } from "./editor/context";
import { Changes } from "./editor/diff";
import { applyEdit, readFile } from "./editor/requests";
import { Log } from "./log";
import type { Approval, InitializationOptions, SecretsPatch } from "./protocol";
import { candidates } from "./sidecar/candidates";
import { plan } from "./sidecar/launch";
import { Sidecar } from "./sidecar/sidecar";
import { StatusItem } from "./status";

const SESSION = "sessionId";

/** For tests in the extension host. */
export interface Api {
  pid(): number | undefined;
}

let running: Sidecar | undefined;

export function activate(context: vscode.ExtensionContext): Api {
  const log = new Log();
  const editor = new LastEditor();
  const changes = new Changes();
  const status = new StatusItem();
  const passing: SecretsPatch = {};

  const sidecar: Sidecar = new Sidecar({
    plan: () => launch(context, log),
    options: () => options(context, passing),
    folders: () =>
      (vscode.workspace.workspaceFolders ?? []).map(({ uri, name }) => ({ uri: uri.toString(), name })),
    log: log.write,
    say: (type, message) => void SHOW[type]?.(message, "Show log").then((picked) => picked && log.channel.show()),
    changed: () => void hub.sidecarChanged(),
    heard: (method, params) => hub.heard(method, params),
    answers: { "editor/readFile": readFile, "editor/applyEdit": applyEdit },
  });
  running = sidecar;

  const hub: Hub = new Hub({
    sidecar,
    memory: context.workspaceState,
    isTrusted: () => vscode.workspace.isTrusted,
    editor: () => editorState(editor.current),
    warn: (message) => log.write({ level: "warning", message }),
    alarm: (message) => void vscode.window.showErrorMessage(message),
    asked: (question) => void showQuestion(question),
    changed: () => status.show(standing()),
    actions: editorActions({
      editor,
      changes,
      exported,
      openInEditor: (conversationId) => views.open(conversationId),
      run: (command, ...args) => vscode.commands.executeCommand(command, ...args),
    }),
  });
  const views = new ChatViews(hub, context.extensionUri);
  const participant = new Participant(hub, context.extensionUri);

  function standing() {
    const { connection } = sidecar;
    return { connection, model: hub.model, agent: hub.agent(hub.shown), questions: hub.questions };
  }

  /** Only where it can be read whole it can be answered. */
  async function showQuestion({ title, conversationId, isProtected }: Approval): Promise<void> {
    const said = isProtected ? `An agent asks about a protected file: ${title}?` : `An agent asks: ${title}?`;
    const picked = await vscode.window.showInformationMessage(said, "Show");
    if (!picked) return;
    if (!hub.deliver({ type: "show", conversationId })) await vscode.commands.executeCommand(`${VIEW}.focus`);
  }

  async function exported(conversationId: string, format: "markdown" | "json") {
    const [{ data }, { conversation }] = await Promise.all([
      sidecar.request("conversation/export", { conversationId, format }),
      sidecar.request("conversation/get", { conversationId, limit: 1 }),
    ]);
    return { data: data ?? "", title: conversation.title ?? "" };
  }

  async function updated(): Promise<void> {
    try {
      await update(sidecar, hub, () => options(context, passing));
    } catch (error) {
      log.write({ level: "error", message: `settings: ${(error as Error).message}` });
    }
  }

  context.subscriptions.push(
    log.channel,
    status,
    editor.subscription,
    changes.subscription,
    ...views.register(),
    ...participant.register(),
    ...registerLanguageModel(hub, (message) => log.write({ level: "info", message })),
    ...registerCommands({
      hub,
      views,
      sidecar,
      editor,
      secrets: context.secrets,
      passing,
      extensionPath: context.extensionPath,
      storagePath: context.globalStorageUri.fsPath,
      log: (message) => log.write({ level: "info", message }),
      showLog: () => log.channel.show(),
      update: updated,
    }),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (STARTS_ANEW.some((name) => change.affectsConfiguration(name))) void sidecar.restart();
      else if (change.affectsConfiguration("agentSidecar")) void updated();
    }),
    vscode.workspace.onDidGrantWorkspaceTrust(() => void sidecar.restart()),
    vscode.workspace.onDidChangeWorkspaceFolders(() => void sidecar.restart()),
    context.secrets.onDidChange(({ key }) => {
      if (key.startsWith("agentSidecar.")) void updated(); // also by another window
    }),
    vscode.window.onDidChangeActiveTextEditor(() => hub.show()),
    vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => hub.selectionMoved(textEditor.selection.isEmpty)),
    { dispose: () => hub.dispose() },
  );
  status.show(standing());
  void sidecar.start();
  return { pid: () => sidecar.pid };
}

/** A turn that runs finishes in the process that is left, within its `lingerTimeout`. */
export async function deactivate(): Promise<void> {
  await running?.stop();
}

const STARTS_ANEW = ["agentSidecar.interpreter", "agentSidecar.serverPath"];
const SHOW: Record<number, ((message: string, ...items: string[]) => Thenable<string | undefined>) | undefined> = {
  1: vscode.window.showErrorMessage,
  2: vscode.window.showWarningMessage,
  3: vscode.window.showInformationMessage,
};

function setting(name: string): string {
  const inspected = vscode.workspace.getConfiguration("agentSidecar").inspect(name);
  const value = chosen(inspected, vscode.workspace.isTrusted);
  return typeof value === "string" ? value : "";
}

async function launch(context: vscode.ExtensionContext, log: Log) {
  return plan({
    extensionPath: context.extensionPath,
    home: os.homedir(),
    serverPath: setting("serverPath"),
    candidates: candidates({
      setting: setting("interpreter"),
      storage: context.globalStorageUri.fsPath,
      log: (message) => log.write({ level: "info", message }),
    }),
    env: process.env,
  });
}

async function options(
  context: vscode.ExtensionContext,
  passing: SecretsPatch,
): Promise<InitializationOptions> {
  const configuration = vscode.workspace.getConfiguration("agentSidecar");
  return {
    protocolVersions: [1],
    sessionId: await session(context),
    // The extension reads as well: without it, the last document to go would end all subscriptions.
    webviewId: "extension",
    workspaceTrusted: vscode.workspace.isTrusted,
    settings: settingsOf((name) => configuration.inspect(name), vscode.workspace.isTrusted),
    secrets: await secretsOf(context.secrets, process.env, passing),
  };
}

/** One for each workspace, so that its agents may talk to each other across windows and restarts. */
async function session(context: vscode.ExtensionContext): Promise<string> {
  const known = context.workspaceState.get<string>(SESSION);
  if (known) return known;
  const made = randomUUID();
  await context.workspaceState.update(SESSION, made);
  return made;
}
