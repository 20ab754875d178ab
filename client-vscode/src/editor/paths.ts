/** Names of files: what a model, a user and the editor call the same file. */
import * as vscode from "vscode";

/** The workspace's file that is called so, if there is one: relative, absolute, or a `file:` URI. */
export async function findFile(name: string): Promise<vscode.Uri | null> {
  for (const uri of candidates(name)) {
    if (isInWorkspace(uri) && (await isFile(uri))) return uri;
  }
  return null;
}

export function isInWorkspace(uri: vscode.Uri): boolean {
  return vscode.workspace.getWorkspaceFolder(uri) !== undefined;
}

/** As the sidecar names it: relative to its folder, with the folder's name where there are several. */
export function nameOf(uri: vscode.Uri): string {
  return vscode.workspace.asRelativePath(uri);
}

function candidates(name: string): vscode.Uri[] {
  if (/^file:/i.test(name)) return [vscode.Uri.parse(name)];
  if (/^([a-z]:)?[\\/]/i.test(name)) return [vscode.Uri.file(name)];
  return (vscode.workspace.workspaceFolders ?? []).flatMap((folder) => {
    const parts = name.replaceAll("\\", "/").split("/");
    const within = parts[0] === folder.name ? [parts.slice(1)] : [];
    return [parts, ...within].map((path) => vscode.Uri.joinPath(folder.uri, ...path));
  });
}

async function isFile(uri: vscode.Uri): Promise<boolean> {
  try {
    return ((await vscode.workspace.fs.stat(uri)).type & vscode.FileType.File) !== 0;
  } catch {
    return false; // there is none, or it cannot be seen, which comes to the same
  }
}
