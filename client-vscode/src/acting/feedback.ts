/** Files, a selection or the changes of the working tree, reviewed by personas in a conversation. */
import { randomUUID } from "node:crypto";
import * as vscode from "vscode";

import type { Hub } from "../chat/hub";
import { asError } from "../chat/link";
import { EXCLUDED, fileContext, fileOf, selectionContext, type LastEditor } from "../editor/context";
import { isInWorkspace } from "../editor/paths";
import type { ContextFile } from "../protocol";
import { hasGit, workingTreeDiff } from "./git";

export interface FeedbackHost {
  hub: Hub;
  editor: LastEditor;
  /** Show this conversation where the user looks, or will look. */
  show(conversationId: string): Promise<void>;
}

interface Subject {
  files: ContextFile[];
  diff: string | null;
}

const MOST_FILES = 50;
const MOST_DIFF = 4 * 1024 * 1024;

/** `uri` and `uris`: what the explorer's, or an editor's, menu was opened on. */
export async function getFeedback(host: FeedbackHost, uri?: vscode.Uri, uris?: vscode.Uri[]): Promise<void> {
  const named = uris ?? (uri ? [uri] : []);
  const subject = named.length > 0 ? { files: await filesOf(named, host.editor), diff: null } : await pickSubject(host);
  if (!subject) return;
  if (subject.files.length === 0 && !subject.diff) {
    void vscode.window.showInformationMessage("There is nothing to review.");
    return;
  }
  const personaIds = await pickPersonas(host.hub);
  if (personaIds) await run(host, subject, personaIds);
}

async function run({ hub, show }: FeedbackHost, { files, diff }: Subject, personaIds: string[]): Promise<void> {
  const requestKey = randomUUID();
  const { conversationId } = await hub.request("conversation/create", { mode: "feedback", requestKey });
  await show(conversationId);
  try {
    // How far it is, and the report, are shown by the conversation.
    const params = { conversationId, contextFiles: files, diff, personaIds, requestKey: `run-${requestKey}` };
    await hub.request("feedback/run", params);
  } catch (error) {
    const { message, hint } = asError(error);
    void vscode.window.showErrorMessage(["No feedback:", message, hint].filter(Boolean).join(" "));
  }
}

async function pickSubject({ editor }: FeedbackHost): Promise<Subject | undefined> {
  const shown = editor.current;
  const name = shown && vscode.workspace.asRelativePath(shown.document.uri);
  const items: (vscode.QuickPickItem & { subject: () => Promise<Subject> })[] = [];
  const offer = (label: string, description: string, subject: () => Promise<Subject>) =>
    items.push({ label, description, subject });
  if (shown && !shown.selection.isEmpty) {
    offer("Selection", name ?? "", async () => ({ files: [selectionContext(shown)], diff: null }));
  }
  if (shown) offer("Current file", name ?? "", async () => ({ files: [fileContext(shown)], diff: null }));
  if (hasGit()) offer("Changes of the working tree", "as git has them", async () => ({ files: [], diff: await diffOf() }));
  if (items.length === 0) {
    void vscode.window.showInformationMessage("Open the file that should be reviewed.");
    return undefined;
  }
  const picked = items.length === 1 ? items[0] : await vscode.window.showQuickPick(items, { title: "Feedback on what?" });
  return picked?.subject();
}

async function diffOf(): Promise<string> {
  const diff = await workingTreeDiff();
  if (diff.length > MOST_DIFF) throw new Error("The changes are too many to be reviewed at once. Choose some files.");
  return diff;
}

/** Those that come along are chosen beforehand. Undefined: the user left it. */
async function pickPersonas(hub: Hub): Promise<string[] | undefined> {
  const { personas } = await hub.request("persona/list", {});
  const items = personas.map(({ personaId, name, role, isBuiltIn }) => ({
    label: name,
    description: role ?? "",
    picked: isBuiltIn ?? false,
    personaId,
  }));
  const picked = await vscode.window.showQuickPick(items, {
    title: "Feedback by whom?",
    placeHolder: "All of them review at the same time",
    canPickMany: true,
    matchOnDescription: true,
  });
  return picked && picked.length > 0 ? picked.map(({ personaId }) => personaId) : undefined;
}

/** Of a folder, the files in it. Those that are open go along as they are shown. */
async function filesOf(uris: vscode.Uri[], editor: LastEditor): Promise<ContextFile[]> {
  const found: vscode.Uri[] = [];
  for (const uri of uris.filter(isInWorkspace)) {
    const { type } = await vscode.workspace.fs.stat(uri);
    if ((type & vscode.FileType.Directory) === 0) found.push(uri);
    else found.push(...(await vscode.workspace.findFiles(new vscode.RelativePattern(uri, "**/*"), EXCLUDED, MOST_FILES + 1)));
  }
  if (found.length > MOST_FILES) throw new Error(`At most ${MOST_FILES} files are reviewed at once.`);
  const shown = editor.current;
  const isShown = shown && found.length === 1 && found[0]?.toString() === shown.document.uri.toString();
  if (isShown && !shown.selection.isEmpty) return [selectionContext(shown)];
  return found.map(fileOf);
}
