/** Settings and keys as they are now, given to the sidecar, and what it does not like about them. */
import * as vscode from "vscode";

import type { Hub } from "../chat/hub";
import type { InitializationOptions, Problem } from "../protocol";
import { SidecarGone, type Sidecar } from "../sidecar/sidecar";
import { SECRETS } from "./secrets";

/** Raises what is not the sidecar's having gone: the next one is given them as it starts. */
export async function update(sidecar: Sidecar, hub: Hub, options: () => Promise<InitializationOptions>): Promise<void> {
  try {
    const { settings, secrets } = await options();
    const { problems } = await sidecar.request("settings/update", { settings, secrets });
    await hub.learn();
    for (const problem of hub.refused(problems)) void tell(problem);
  } catch (error) {
    if (!(error instanceof SidecarGone)) throw error;
  }
}

async function tell({ field, message, hint }: Problem): Promise<void> {
  const isKey = Object.hasOwn(SECRETS, field);
  const action = isKey ? "Set API Key" : "Open Settings";
  const picked = await vscode.window.showWarningMessage(`${message} ${hint}`, action);
  if (!picked) return;
  if (isKey) await vscode.commands.executeCommand("agentSidecar.setKey", field);
  else await vscode.commands.executeCommand("workbench.action.openSettings", `agentSidecar.${field}`);
}
