/** What a document of the chat may have the editor do. */
import * as vscode from "vscode";

import type { HubHost } from "../chat/hub";
import {
  droppedFiles,
  editorState,
  fileContext,
  findFiles,
  selectionContext,
  type LastEditor,
} from "./context";
import type { Changes } from "./diff";
import { findFile } from "./paths";

export interface ActionsHost {
  editor: LastEditor;
  changes: Changes;
  exported(conversationId: string, format: "markdown" | "json"): Promise<{ data: string; title: string }>;
  openInEditor(conversationId: string | null): void;
  run(command: string, ...args: unknown[]): Thenable<unknown>;
}

const OK = { ok: true } as const;
const LINK_SCHEMES = new Set(["http", "https", "mailto"]);

export function editorActions(host: ActionsHost): HubHost["actions"] {
  return {
    "editor/insert": async ({ text }) => {
      const editor = host.editor.current;
      if (!editor) throw new Error("Open the file in which it should be inserted.");
      await editor.edit((edit) => edit.replace(editor.selection, text));
      await vscode.window.showTextDocument(editor.document, editor.viewColumn);
      return OK;
    },
    "editor/apply": async ({ text, path }) => {
      const uri = path ? await findFile(path) : host.editor.current?.document.uri;
      if (!uri) {
        throw new Error(
          path ? `There is no file '${path}' in the workspace.` : "Open the file that it should change.",
        );
      }
      return { applied: await host.changes.propose(uri, text) };
    },
    "editor/copy": async ({ text }) => {
      await vscode.env.clipboard.writeText(text);
      return OK;
    },
    "editor/open": async ({ path, line }) => {
      const uri = await findFile(path);
      if (!uri) throw new Error(`There is no file '${path}' in the workspace.`);
      const at = new vscode.Position(Math.max((line ?? 1) - 1, 0), 0);
      await vscode.window.showTextDocument(uri, { selection: new vscode.Range(at, at) });
      return OK;
    },
    "editor/openLink": async ({ url }) => ({ opened: await openLink(url) }),
    "editor/findFiles": async ({ query }) => ({ files: await findFiles(query) }),
    "editor/context": async ({ what }) => {
      const editor = host.editor.current;
      if (!editor || (what === "selection" && editor.selection.isEmpty)) return { file: null };
      return { file: what === "file" ? fileContext(editor) : selectionContext(editor) };
    },
    "editor/dropped": async ({ uris }) => ({ files: droppedFiles(uris) }),
    "editor/export": async ({ conversationId, format }) => {
      const { data, title } = await host.exported(conversationId, format);
      return { path: await saveAs(title, format, data) };
    },
    "chat/openInEditor": async ({ conversationId }) => {
      host.openInEditor(conversationId);
      return OK;
    },
    "model/pick": run(host, "agentSidecar.pickModel"),
    "personas/manage": run(host, "agentSidecar.managePersonas"),
    "keys/set": async ({ secret }) => {
      await host.run("agentSidecar.setKey", secret ?? undefined);
      return OK;
    },
    "models/install": run(host, "agentSidecar.installModels"),
    "sidecar/restart": run(host, "agentSidecar.restart"),
    "sidecar/showLog": run(host, "agentSidecar.showLog"),
    "sidecar/pickInterpreter": run(host, "agentSidecar.pickInterpreter"),
    "settings/open": run(host, "workbench.action.openSettings", "agentSidecar"),
  };
}

function run(host: ActionsHost, command: string, ...args: unknown[]) {
  return async () => {
    await host.run(command, ...args);
    return OK;
  };
}

/** A model may write any link. Where it leads is shown before it is followed. */
async function openLink(url: string): Promise<boolean> {
  const uri = vscode.Uri.parse(url, true);
  if (!LINK_SCHEMES.has(uri.scheme)) throw new Error(`Links of the kind '${uri.scheme}:' are not opened.`);
  const answer = await vscode.window.showWarningMessage(
    "Open this link of the conversation?",
    { modal: true, detail: uri.toString(true) },
    "Open",
  );
  return answer === "Open" && vscode.env.openExternal(uri);
}

async function saveAs(title: string, format: "markdown" | "json", data: string): Promise<string | null> {
  const name = title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
  const extension = format === "markdown" ? "md" : "json";
  const folder = vscode.workspace.workspaceFolders?.[0]?.uri;
  const target = await vscode.window.showSaveDialog({
    defaultUri: folder && vscode.Uri.joinPath(folder, `${name}.${extension}`),
    filters: { [format === "markdown" ? "Markdown" : "JSON"]: [extension] },
  });
  if (!target) return null;
  await vscode.workspace.fs.writeFile(target, new TextEncoder().encode(data));
  return target.fsPath;
}

export { editorState };
