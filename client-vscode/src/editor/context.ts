/** What of the editor goes along with a prompt. */
import * as vscode from "vscode";

import type { ContextFile } from "../protocol";
import type { FoundFile, State } from "../shared/messages";
import { best } from "./finding";
import { isInWorkspace, nameOf } from "./paths";

export const EXCLUDED = "**/{node_modules,.git,dist,build,out,target,__pycache__,.venv,venv}/**";

/** The text editor that was used last: while the chat has the focus there is no active one. */
export class LastEditor {
  private last = vscode.window.activeTextEditor;
  readonly subscription = vscode.window.onDidChangeActiveTextEditor((editor) => {
    if (editor) this.last = editor;
  });

  get current(): vscode.TextEditor | undefined {
    const editor = vscode.window.activeTextEditor ?? this.last;
    return editor && isShown(editor) && editor.document.uri.scheme !== "output" ? editor : undefined;
  }
}

function isShown(editor: vscode.TextEditor): boolean {
  return vscode.window.visibleTextEditors.includes(editor);
}

export function editorState(editor: vscode.TextEditor | undefined): State["editor"] {
  if (!editor) return null;
  return { path: nameOf(editor.document.uri), selection: !editor.selection.isEmpty };
}

/** The whole file, as it is in the editor. */
export function fileContext(editor: vscode.TextEditor): ContextFile {
  return contextOf(editor.document);
}

/** A file, as an editor has it if one has. */
export function fileOf(uri: vscode.Uri): ContextFile {
  const document = vscode.workspace.textDocuments.find((open) => open.uri.toString() === uri.toString());
  return document ? contextOf(document) : { uri: uri.toString() };
}

function contextOf(document: vscode.TextDocument): ContextFile {
  return { uri: document.uri.toString(), text: document.isDirty ? document.getText() : undefined };
}

export function selectionContext(editor: vscode.TextEditor): ContextFile {
  const { document, selection } = editor;
  return {
    uri: document.uri.toString(),
    range: { start: place(selection.start), end: place(selection.end) },
    text: document.getText(selection),
  };
}

function place(position: vscode.Position): { line: number; character: number } {
  return { line: position.line, character: position.character };
}

/** Files of the workspace for what was typed. */
export async function findFiles(query: string): Promise<FoundFile[]> {
  const uris = await vscode.workspace.findFiles("**/*", EXCLUDED, 20_000);
  return best(
    uris.map((uri) => ({ uri: uri.toString(), path: nameOf(uri) })),
    query,
  );
}

/** Of what was dropped on the chat, the files of the workspace. */
export function droppedFiles(uris: string[]): ContextFile[] {
  return uris
    .map((uri) => vscode.Uri.parse(uri))
    .filter((uri) => uri.scheme === "file" && isInWorkspace(uri))
    .map((uri) => ({ uri: uri.toString() }));
}
