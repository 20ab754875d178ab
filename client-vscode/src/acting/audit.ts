/** What agents did and were kept from doing, as a document of its own. */
import * as vscode from "vscode";

import type { Hub } from "../chat/hub";
import { lineOf } from "../shared/audit";

const NEWEST = 500;

export async function showAudit(hub: Hub): Promise<void> {
  const { entries, report } = await hub.request("audit/read", { limit: NEWEST });
  const whole = report?.problem ? `NOT WHOLE: ${report.problem}` : `${report?.entries ?? 0} entries, none changed, none missing`;
  const content = [whole, `head ${report?.head ?? ""}`, "", ...entries.map(lineOf)].join("\n");
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content, language: "plaintext" }));
}
