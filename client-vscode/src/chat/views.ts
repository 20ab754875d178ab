/** Where a chat is shown: the view in a side bar, and tabs among the editors. */
import { randomUUID } from "node:crypto";
import * as vscode from "vscode";

import type { ToView } from "../shared/messages";
import { page } from "./html";
import type { Hub } from "./hub";
import type { Link, Place } from "./link";

export const VIEW = "agentSidecar.chat";
export const EDITOR = "agentSidecar.chatEditor";

export class ChatViews implements vscode.WebviewViewProvider, vscode.WebviewPanelSerializer {
  constructor(
    private readonly hub: Hub,
    private readonly extensionUri: vscode.Uri,
  ) {}

  register(): vscode.Disposable[] {
    return [
      vscode.window.registerWebviewViewProvider(VIEW, this),
      vscode.window.registerWebviewPanelSerializer(EDITOR, this),
    ];
  }

  /** Called again when the view is moved: the one before was disposed, and nothing went with it. */
  resolveWebviewView(view: vscode.WebviewView): void {
    const link = this.attach(view.webview, { reveal: () => view.show() });
    view.onDidChangeVisibility(() => {
      if (!view.visible) link.end();
    });
    view.onDidDispose(() => this.hub.unlink(link));
  }

  /** A tab comes back after the window was reloaded. Its document remembers what it showed. */
  async deserializeWebviewPanel(panel: vscode.WebviewPanel, state: unknown): Promise<void> {
    const remembered = (state as { conversationId?: unknown } | undefined)?.conversationId;
    this.adopt(panel, typeof remembered === "string" ? remembered : null);
  }

  open(conversationId: string | null): void {
    const panel = vscode.window.createWebviewPanel(EDITOR, "Sidecar", vscode.ViewColumn.Active, {
      enableFindWidget: true,
    });
    this.adopt(panel, conversationId);
  }

  private adopt(panel: vscode.WebviewPanel, conversationId: string | null): void {
    panel.iconPath = vscode.Uri.joinPath(this.extensionUri, "media", "icon.svg");
    const link = this.attach(panel.webview, {
      shown: conversationId,
      isTab: true,
      reveal: () => panel.reveal(),
    });
    panel.onDidChangeViewState(() => {
      if (!panel.visible) link.end();
      else if (panel.active) this.hub.use(link);
    });
    panel.onDidDispose(() => this.hub.unlink(link));
  }

  private attach(webview: vscode.Webview, place: Place & { shown?: string | null }): Link {
    const folder = vscode.Uri.joinPath(this.extensionUri, "dist");
    webview.options = { enableScripts: true, localResourceRoots: [folder] };
    const post = (message: ToView) => void webview.postMessage(message);
    const link = this.hub.link(randomUUID(), post, place);
    webview.onDidReceiveMessage((message: unknown) => link.receive(message));
    const address = (name: string) => webview.asWebviewUri(vscode.Uri.joinPath(folder, name)).toString();
    webview.html = page({
      script: address("chat.js"),
      style: address("chat.css"),
      icons: address("codicon.css"),
      cspSource: webview.cspSource,
    });
    return link;
  }
}
