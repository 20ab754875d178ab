/** The working tree's changes, as the editor's own git extension has them. */
import * as vscode from "vscode";

interface Repository {
  readonly rootUri: vscode.Uri;
  diff(cached?: boolean): Promise<string>;
}

interface GitExtension {
  getAPI(version: 1): { repositories: Repository[] };
}

/** Staged or not, of all repositories of the workspace. Empty: there are none, or no git. */
export async function workingTreeDiff(): Promise<string> {
  const git = vscode.extensions.getExtension<GitExtension>("vscode.git");
  if (!git) return "";
  const { repositories } = (await git.activate()).getAPI(1);
  const within = repositories.filter(({ rootUri }) => vscode.workspace.getWorkspaceFolder(rootUri));
  const diffs = await Promise.all(within.flatMap((one) => [one.diff(true), one.diff(false)]));
  return diffs.filter(Boolean).join("\n");
}

/** Git may be there and turned off; then it has no repositories, or says so with an error. */
export function hasGit(): boolean {
  return vscode.extensions.getExtension("vscode.git") !== undefined && vscode.workspace.isTrusted;
}
