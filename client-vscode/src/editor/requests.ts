/** What the sidecar asks of the editor on behalf of an agent. */
import * as vscode from "vscode";

import type { ServerRequests } from "../protocol";
import { replace } from "./diff";
import { isInWorkspace } from "./paths";

type Asked<M extends keyof ServerRequests> = ServerRequests[M]["params"];
type Answer<M extends keyof ServerRequests> = Promise<ServerRequests[M]["result"]>;

/** A file that is open and not saved, as it is shown; of others the sidecar reads what is saved. */
export async function readFile({ uri }: Asked<"editor/readFile">): Answer<"editor/readFile"> {
  const document = opened(uri);
  return document?.isDirty ? { text: document.getText() } : {};
}

/** The user has allowed the change; it is made where the user sees it, if that is what it is of. */
export async function applyEdit(
  params: Asked<"editor/applyEdit">,
): Answer<"editor/applyEdit"> {
  const document = opened(params.uri);
  if (!document || document.getText() !== params.oldText) return { applied: false };
  const wasSaved = !document.isDirty;
  const applied = await replace(document, params.newText);
  // What was saved stays saved: a command that the agent runs next reads the disk.
  if (applied && wasSaved) await document.save();
  return { applied };
}

function opened(uri: string): vscode.TextDocument | undefined {
  const wanted = vscode.Uri.parse(uri, true);
  if (!isInWorkspace(wanted)) throw new Error("That file is not in the workspace.");
  return vscode.workspace.textDocuments.find(
    (document) => document.uri.toString() === wanted.toString(),
  );
}
