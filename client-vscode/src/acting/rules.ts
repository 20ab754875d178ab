/** What the user has allowed for good, and taking it back. */
import * as vscode from "vscode";

import type { Hub } from "../chat/hub";
import { command, conditions } from "../shared/rules";

export async function manageRules(hub: Hub): Promise<void> {
  const { rules } = await hub.request("rule/list", {});
  if (rules.length === 0) {
    void vscode.window.showInformationMessage("No command is always allowed. A question of an agent offers it.");
    return;
  }
  const picked = await vscode.window.showQuickPick(
    rules.map((rule) => ({ label: command(rule.argv), description: conditions(rule), detail: rule.root, rule })),
    {
      title: "Commands that are always allowed",
      placeHolder: "Choose those that should be asked about again",
      canPickMany: true,
      matchOnDetail: true,
    },
  );
  if (!picked || picked.length === 0) return;
  for (const { rule } of picked) await hub.request("rule/remove", { rule });
  const words = picked.length === 1 ? `'${picked[0]?.label}' is` : `${picked.length} commands are`;
  void vscode.window.showInformationMessage(`${words} asked about again.`);
}
