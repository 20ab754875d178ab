/**
 * The second door: `@sidecar` in the editor's own chat, with the same conversations. Where the
 * editor has no such chat there is simply no door.
 */
import { randomUUID } from "node:crypto";
import * as vscode from "vscode";

import type { Event } from "../protocol";
import type { Sidecar } from "../sidecar/sidecar";

export const PARTICIPANT = "agentSidecar.participant";

/** What the editor keeps with each answer, and gives back with the next question. */
interface Metadata {
  conversationId: string;
}

export class Participant {
  private readonly readers = new Set<(event: Event) => void>();

  constructor(
    private readonly sidecar: Sidecar,
    private readonly extensionUri: vscode.Uri,
  ) {}

  register(): vscode.Disposable[] {
    if (typeof vscode.chat?.createChatParticipant !== "function") return [];
    const participant = vscode.chat.createChatParticipant(PARTICIPANT, (...asked) => this.answer(...asked));
    participant.iconPath = vscode.Uri.joinPath(this.extensionUri, "media", "icon.png");
    return [participant];
  }

  hear(event: Event): void {
    for (const reader of this.readers) reader(event);
  }

  private async answer(
    request: vscode.ChatRequest,
    context: vscode.ChatContext,
    stream: vscode.ChatResponseStream,
    token: vscode.CancellationToken,
  ): Promise<vscode.ChatResult> {
    const conversationId = await this.conversation(context);
    const metadata: Metadata = { conversationId };
    await this.sidecar.request("conversation/subscribe", { conversationId });
    const requestKey = randomUUID();
    const read = reader(conversationId, requestKey, stream);
    this.readers.add(read);
    const stop = token.onCancellationRequested(() => {
      this.sidecar.request("agent/cancel", { conversationId }).catch(() => undefined); // it is over
    });
    try {
      const result = await this.sidecar.request("message/send", {
        conversationId,
        input: request.prompt,
        requestKey,
        contextFiles: request.references.flatMap(fileOf),
      });
      if (result.error) {
        return { metadata, errorDetails: { message: [result.error.message, result.error.hint].filter(Boolean).join(" ") } };
      }
      return { metadata };
    } catch (error) {
      return { metadata, errorDetails: { message: (error as Error).message } };
    } finally {
      this.readers.delete(read);
      stop.dispose();
    }
  }

  /** The one that this chat has been about so far, or a new one. */
  private async conversation(context: vscode.ChatContext): Promise<string> {
    for (const turn of [...context.history].reverse()) {
      const metadata = turn instanceof vscode.ChatResponseTurn ? turn.result.metadata : undefined;
      if (typeof metadata?.["conversationId"] === "string") return metadata["conversationId"];
    }
    const made = await this.sidecar.request("conversation/create", { requestKey: randomUUID() });
    return made.conversationId;
  }
}

/** Passes on the text of the one turn that answers the prompt with this key. */
function reader(
  conversationId: string,
  requestKey: string,
  stream: vscode.ChatResponseStream,
): (event: Event) => void {
  let prompt: string | null = null;
  let turn: string | null = null;
  let reply: string | null = null;
  const lengths = new Map<number, number>();
  return (event) => {
    if (event.conversationId !== conversationId) return;
    if (event.type === "turnQueued" && event.requestKey === requestKey) prompt = event.messageId;
    else if (event.type === "turnStarted" && event.messageId === prompt) turn = event.turnId;
    else if (event.type === "messageStarted" && event.turnId === turn && event.role !== "user") {
      reply = event.messageId;
    } else if (event.type === "toolStarted" && event.turnId === turn) stream.progress(`${event.name} …`);
    else if (event.type === "delta" && event.messageId === reply && event.kind === "text") {
      const had = lengths.get(event.part) ?? 0;
      const fresh = event.text.slice(Math.max(had - event.offset, 0));
      lengths.set(event.part, Math.max(had, event.offset + event.text.length));
      if (fresh) stream.markdown(fresh);
    }
  };
}

function fileOf(reference: vscode.ChatPromptReference) {
  const { value } = reference;
  if (value instanceof vscode.Uri) return [{ uri: value.toString() }];
  if (!(value instanceof vscode.Location)) return [];
  const { start, end } = value.range;
  return [
    {
      uri: value.uri.toString(),
      range: {
        start: { line: start.line, character: start.character },
        end: { line: end.line, character: end.character },
      },
    },
  ];
}
