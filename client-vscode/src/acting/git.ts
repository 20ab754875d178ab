/** The working tree's changes, as the editor's own git extension has them. */
import * as vscode from "vscode";

interface Repository {
  readonly rootUri: vscode.Uri;
  diff(cached?: boolean): Promise<string>;
}

interface GitApi {
  readonly state: "uninitialized" | "initialized";
  readonly repositories: Repository[];
  onDidChangeState: vscode.Event<"uninitialized" | "initialized">;
}

interface GitExtension {
  getAPI(version: 1): GitApi;
}

const PATIENCE_MILLISECONDS = 5_000;

/** Staged or not, of all repositories of the workspace. Empty: there are none, or no git. */
export async function workingTreeDiff(): Promise<string> {
  const git = vscode.extensions.getExtension<GitExtension>("vscode.git");
  if (!git) return "";
  const api = (await git.activate()).getAPI(1);
  if (api.state !== "initialized") await initialized(api);
  const within = api.repositories.filter(({ rootUri }) => vscode.workspace.getWorkspaceFolder(rootUri));
  const diffs = await Promise.all(within.flatMap((one) => [one.diff(true), one.diff(false)]));
  return diffs.filter(Boolean).join("\n");
}

/** It looks for repositories first; where there is no git at all it never ends. */
function initialized(api: GitApi): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      listening.dispose();
      resolve();
    };
    const timer = setTimeout(end, PATIENCE_MILLISECONDS);
    const listening = api.onDidChangeState((state) => state === "initialized" && end());
  });
}

/** Git may be there and turned off; then it has no repositories, or says so with an error. */
export function hasGit(): boolean {
  return vscode.extensions.getExtension("vscode.git") !== undefined && vscode.workspace.isTrusted;
}
