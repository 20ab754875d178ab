/** A change of a file, shown as a difference before it is made. */
import * as vscode from "vscode";

import { difference, endedAs } from "./difference";
import { nameOf } from "./paths";

const SCHEME = "agent-sidecar-change";

export class Changes implements vscode.TextDocumentContentProvider {
  private readonly texts = new Map<string, string>();
  private count = 0;
  readonly subscription = vscode.workspace.registerTextDocumentContentProvider(SCHEME, this);

  provideTextDocumentContent(uri: vscode.Uri): string {
    return this.texts.get(uri.toString()) ?? "";
  }

  /** Show the change, and make it if the user says so. False: not made. */
  async propose(uri: vscode.Uri, proposed: string): Promise<boolean> {
    const text = (await vscode.workspace.openTextDocument(uri)).getText();
    const newText = endedAs(text, proposed);
    const changed = uri.with({ scheme: SCHEME, query: String((this.count += 1)) });
    this.texts.set(changed.toString(), newText);
    try {
      const title = `${nameOf(uri)} (proposed change)`;
      await vscode.commands.executeCommand("vscode.diff", uri, changed, title, { preview: true });
      const answer = await vscode.window.showInformationMessage(
        `Apply this change to ${nameOf(uri)}?`,
        "Apply",
        "Discard",
      );
      if (answer !== "Apply") return false;
      const document = await vscode.workspace.openTextDocument(uri);
      if (document.getText() !== text) {
        void vscode.window.showWarningMessage(`${nameOf(uri)} was changed meanwhile. Nothing was applied.`);
        return false;
      }
      return await replace(document, newText);
    } finally {
      await closeTab(changed);
      this.texts.delete(changed.toString());
    }
  }
}

/** Only what differs is replaced, so that cursors and marks elsewhere stay where they are. */
export async function replace(document: vscode.TextDocument, newText: string): Promise<boolean> {
  const text = document.getText();
  const { start, end, inserted } = difference(text, newText);
  const edit = new vscode.WorkspaceEdit();
  const range = new vscode.Range(document.positionAt(start), document.positionAt(end));
  edit.replace(document.uri, range, inserted);
  return vscode.workspace.applyEdit(edit);
}

async function closeTab(uri: vscode.Uri): Promise<void> {
  const tabs = vscode.window.tabGroups.all.flatMap((group) => group.tabs);
  const ours = tabs.filter(
    (tab) =>
      tab.input instanceof vscode.TabInputTextDiff && tab.input.modified.toString() === uri.toString(),
  );
  await vscode.window.tabGroups.close(ours);
}
