/** Where interpreters are looked for, in order. Nothing here waits for another extension for long. */
import os from "node:os";
import path from "node:path";
import * as vscode from "vscode";

import { expanded, ofEnvironment, onPath, type Candidate } from "./interpreters";

const PATIENCE_MILLISECONDS = 2_000;

/** What of the two extensions for Python is used here. */
interface EnvironmentsApi {
  getEnvironment(scope: vscode.Uri | undefined): Promise<{ execInfo?: { run?: { executable?: string } } } | undefined>;
}
interface PythonApi {
  environments: {
    getActiveEnvironmentPath(scope?: vscode.Uri): { path: string };
    resolveEnvironment(path: { path: string }): Promise<{ executable: { uri?: vscode.Uri } } | undefined>;
  };
}

export interface Places {
  /** The setting `agentSidecar.interpreter`, as far as it counts. */
  setting: string;
  /** Where the extension keeps an environment of its own; null: that one is not wanted. */
  storage: string | null;
  log(message: string): void;
}

export async function* candidates(places: Places): AsyncIterable<Candidate> {
  const folder = vscode.workspace.workspaceFolders?.[0]?.uri;
  if (places.setting) {
    const command = expanded(places.setting, folder?.fsPath, os.homedir());
    yield { source: "the setting 'agentSidecar.interpreter'", command, args: [] };
    return; // who chose one does not want another
  }
  if (places.storage !== null) {
    const own = ofEnvironment(path.join(places.storage, "venv"), process.platform);
    yield { source: "the extension's own environment", command: own, args: [] };
  }
  if (vscode.workspace.isTrusted) {
    const ways = [
      ["the Python Environments extension", fromEnvironments],
      ["the Python extension", fromPython],
    ] as const;
    for (const [source, find] of ways) {
      const command = await patiently(find(folder), source, places.log);
      if (command) yield { source, command, args: [] };
    }
  }
  yield* onPath(process.platform);
}

async function fromEnvironments(folder: vscode.Uri | undefined): Promise<string | undefined> {
  const api = await exportsOf<EnvironmentsApi>("ms-python.vscode-python-envs");
  return (await api?.getEnvironment(folder))?.execInfo?.run?.executable;
}

async function fromPython(folder: vscode.Uri | undefined): Promise<string | undefined> {
  const api = await exportsOf<PythonApi>("ms-python.python");
  if (!api) return undefined;
  const resolved = await api.environments.resolveEnvironment(api.environments.getActiveEnvironmentPath(folder));
  return resolved?.executable.uri?.fsPath;
}

async function exportsOf<T>(id: string): Promise<T | undefined> {
  const extension = vscode.extensions.getExtension<T>(id);
  return extension?.isActive ? extension.exports : extension?.activate();
}

/** Their answer, or nothing if they fail or take their time. */
async function patiently(
  asked: Promise<string | undefined>,
  source: string,
  log: (message: string) => void,
): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const reason = new Error(`no answer within ${PATIENCE_MILLISECONDS / 1000} s`);
    timer = setTimeout(reject, PATIENCE_MILLISECONDS, reason);
  });
  try {
    return await Promise.race([asked, late]);
  } catch (error) {
    log(`${source}: ${(error as Error).message}`);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
