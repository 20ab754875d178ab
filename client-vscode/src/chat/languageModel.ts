/**
 * The sidecar's model as one of the editor's own. Newer editors call no participant before they
 * have some model, and without an account they have none: so `@sidecar` brings along its own.
 */
import { randomUUID } from "node:crypto";
import * as vscode from "vscode";

import type { Hub } from "./hub";
import { replyReader } from "./reply";

const VENDOR = "agent-sidecar";
/** What no model of ours says of itself; long prompts are the provider's to refuse. */
const TOKENS = { maxInputTokens: 128_000, maxOutputTokens: 32_000 };
const LETTERS_PER_TOKEN = 4;

/** Of the editor's interface, which is younger than the oldest editor that we run in. */
interface ModelsOfEditor {
  registerLanguageModelChatProvider?(vendor: string, provider: object): vscode.Disposable;
  selectChatModels(selector: { vendor: string }): Thenable<unknown[]>;
}

interface Part {
  value?: unknown;
}
interface Asked {
  content: readonly Part[];
}

export function registerLanguageModel(hub: Hub, log: (message: string) => void): vscode.Disposable[] {
  const models = vscode.lm as unknown as ModelsOfEditor | undefined;
  if (typeof models?.registerLanguageModelChatProvider !== "function") return [];
  const registered = models.registerLanguageModelChatProvider(VENDOR, new SidecarModel(hub));
  // Models are looked for when somebody asks; the first question should not fail for want of one.
  models.selectChatModels({ vendor: VENDOR }).then(undefined, (error: Error) => log(`models: ${error.message}`));
  return [registered];
}

class SidecarModel {
  /** What is asked of the model alone, without `@sidecar`, is one conversation as well. */
  private conversation: Promise<string> | null = null;

  constructor(private readonly hub: Hub) {}

  provideLanguageModelChatInformation() {
    return [
      {
        id: VENDOR,
        name: "Sidecar",
        family: VENDOR,
        version: "1",
        isDefault: true,
        isUserSelectable: true,
        // An editor in its agent mode counts no other model. The agent has tools of its own.
        capabilities: { toolCalling: true },
        ...TOKENS,
      },
    ];
  }

  async provideLanguageModelChatResponse(
    _model: unknown,
    messages: readonly Asked[],
    _options: unknown,
    progress: vscode.Progress<vscode.LanguageModelTextPart>,
    token: vscode.CancellationToken,
  ): Promise<void> {
    const conversationId = await this.known();
    const requestKey = randomUUID();
    const stream = {
      markdown: (text: string) => progress.report(new vscode.LanguageModelTextPart(text)),
      progress: () => undefined,
    };
    const reading = this.hub.read(conversationId, replyReader(requestKey, stream));
    try {
      const input = textOf(messages.at(-1));
      await this.hub.request("message/send", { conversationId, input, requestKey }, token);
    } catch (error) {
      this.conversation = null; // it may have been deleted; the next question begins another
      throw error;
    } finally {
      reading.dispose();
    }
  }

  async provideTokenCount(_model: unknown, text: string | Asked): Promise<number> {
    const letters = typeof text === "string" ? text : textOf(text);
    return Math.ceil(letters.length / LETTERS_PER_TOKEN);
  }

  /** Its conversation; one that could not be made is tried again the next time. */
  private async known(): Promise<string> {
    this.conversation ??= this.hub
      .request("conversation/create", { requestKey: randomUUID() })
      .then((made) => made.conversationId);
    try {
      return await this.conversation;
    } catch (error) {
      this.conversation = null;
      throw error;
    }
  }
}

function textOf(message: Asked | undefined): string {
  return (message?.content ?? []).map(({ value }) => (typeof value === "string" ? value : "")).join("");
}
