/**
 * The second door: `@sidecar` in the editor's own chat, with the same conversations. Where the
 * editor has no such chat there is simply no door.
 */
import { randomUUID } from "node:crypto";
import * as vscode from "vscode";

import type { Hub } from "./hub";
import { asError } from "./link";
import { replyReader } from "./reply";

export const PARTICIPANT = "agentSidecar.participant";

/** What the editor keeps with each answer, and gives back with the next question. */
interface Metadata {
  conversationId: string;
}

export class Participant {
  constructor(
    private readonly hub: Hub,
    private readonly extensionUri: vscode.Uri,
  ) {}

  register(): vscode.Disposable[] {
    if (typeof vscode.chat?.createChatParticipant !== "function") return [];
    const participant = vscode.chat.createChatParticipant(PARTICIPANT, (...asked) => this.answer(...asked));
    participant.iconPath = vscode.Uri.joinPath(this.extensionUri, "media", "icon.png");
    return [participant];
  }

  private async answer(
    request: vscode.ChatRequest,
    context: vscode.ChatContext,
    stream: vscode.ChatResponseStream,
    token: vscode.CancellationToken,
  ): Promise<vscode.ChatResult> {
    const conversationId = await this.conversation(context);
    const metadata: Metadata = { conversationId };
    const requestKey = randomUUID();
    const reading = this.hub.read(conversationId, replyReader(requestKey, stream));
    try {
      // Cancelling the request ends this prompt's turn, or takes it out of the queue; no other.
      const prompt = { conversationId, input: request.prompt, requestKey, contextFiles: request.references.flatMap(fileOf) };
      await this.hub.request("message/send", prompt, token);
      return { metadata };
    } catch (error) {
      const { message, hint } = asError(error);
      return { metadata, errorDetails: { message: [message, hint].filter(Boolean).join(" ") } };
    } finally {
      reading.dispose();
    }
  }

  /** The one that this chat has been about so far, or a new one. */
  private async conversation(context: vscode.ChatContext): Promise<string> {
    for (const turn of [...context.history].reverse()) {
      const metadata = turn instanceof vscode.ChatResponseTurn ? turn.result.metadata : undefined;
      if (typeof metadata?.["conversationId"] === "string") return metadata["conversationId"];
    }
    const made = await this.hub.request("conversation/create", { requestKey: randomUUID() });
    return made.conversationId;
  }
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
