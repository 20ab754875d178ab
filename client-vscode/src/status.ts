/** One item of the status bar: how the shown conversation stands. */
import * as vscode from "vscode";

import type { AgentInfo } from "./protocol";
import type { Connection } from "./shared/messages";

export interface Standing {
  connection: Connection;
  model: string;
  agent: AgentInfo | null;
  questions: number;
}

export class StatusItem {
  private readonly item = vscode.window.createStatusBarItem(
    "agentSidecar",
    vscode.StatusBarAlignment.Right,
    100,
  );

  constructor() {
    this.item.name = "Sidecar";
    this.item.command = "agentSidecar.open";
    this.item.show();
  }

  show(standing: Standing): void {
    const { text, tooltip, isAlarming } = said(standing);
    this.item.text = text;
    this.item.tooltip = tooltip;
    this.item.backgroundColor = isAlarming
      ? new vscode.ThemeColor("statusBarItem.warningBackground")
      : undefined;
  }

  dispose(): void {
    this.item.dispose();
  }
}

export function said({ connection, model, agent, questions }: Standing): {
  text: string;
  tooltip: string;
  isAlarming: boolean;
} {
  if (connection.kind === "starting") {
    return { text: "$(loading~spin) Sidecar", tooltip: connection.detail, isAlarming: false };
  }
  if (connection.kind === "failed") {
    return { text: "$(error) Sidecar", tooltip: connection.title, isAlarming: true };
  }
  const icon = questions ? "$(bell-dot)" : agent?.isProcessing ? "$(loading~spin)" : "$(comment-discussion)";
  const queue = agent?.queueLength ? `+${agent.queueLength}` : "";
  const mode = agent && agent.mode !== "chat" ? agent.mode : "";
  const asked = questions ? `${questions} ${questions === 1 ? "question" : "questions"} to answer` : "";
  const state = agent ? `${agent.mode}, ${agent.isProcessing ? "answering" : "idle"}` : "idle";
  const waiting = agent?.queueLength ? `${agent.queueLength} waiting` : "";
  return {
    text: [icon, model || "Sidecar", mode, queue].filter(Boolean).join(" "),
    tooltip: [`Sidecar: ${state}`, waiting, asked, `Model: ${model}`].filter(Boolean).join("\n"),
    isAlarming: questions > 0,
  };
}
