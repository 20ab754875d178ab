/** What a click on a link of a model does: nothing that the user was not asked about. */
import type { Chat } from "./chat";
import { targetOf } from "./markdown";

export function openLink(chat: Chat, event: Event): void {
  const link = (event.target as HTMLElement).closest?.<HTMLElement>("a[data-href]");
  if (!link) return;
  event.preventDefault();
  const target = targetOf(link.dataset["href"] ?? "");
  if (target.kind === "web") chat.act(chat.request("editor/openLink", { url: target.url }));
  else if (target.kind === "file") {
    chat.act(chat.request("editor/open", { path: target.path, line: target.line }));
  }
}
