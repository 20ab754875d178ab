/** Going back in a conversation: what it would do, and doing it as the user wants. */
import type { RewindResult, UndoneFile } from "../src/protocol";
import { Refused } from "./bridge";
import type { Chat } from "./chat";

export interface Wish {
  files: boolean;
  /** Also files that somebody has changed since. */
  force: boolean;
}

export class Rewinding {
  /** What it would do; null while it is asked for. */
  seen: RewindResult | null = null;
  problem: string | null = null;
  isBusy = true;
  /** A prompt that is taken back is written again. */
  readonly text: string | null;
  private toMessageId: string | null = null;

  constructor(
    private readonly chat: Chat,
    private readonly conversationId: string,
    private readonly messageId: string,
    private readonly changed: () => void,
  ) {
    const message = this.message;
    const isPrompt = message?.role === "user";
    this.text = isPrompt ? message.parts.map((part) => (part.kind === "text" ? part.text : "")).join("") : null;
  }

  get files(): UndoneFile[] {
    return this.seen?.files ?? [];
  }

  /** Files that are not as the agent left them, or cannot be put back. */
  get hindered(): UndoneFile[] {
    return this.files.filter(({ state }) => state === "conflict" || state === "failed");
  }

  get hasFiles(): boolean {
    return this.files.some(({ state }) => state !== "same");
  }

  async look(): Promise<void> {
    await this.trying(async () => {
      this.toMessageId = await this.last();
      this.seen = await this.request({ files: true, force: false }, true);
    });
  }

  async rewind(wish: Wish): Promise<void> {
    await this.trying(async () => {
      try {
        const { files = [] } = await this.request(wish, false);
        this.done(wish.files ? files.filter(({ state }) => state === "failed" || state === "conflict") : []);
      } catch (error) {
        // Somebody changed a file after it was looked at: look again, and say so.
        this.seen = await this.request({ files: true, force: false }, true).catch(() => this.seen);
        throw error;
      }
    });
  }

  private done(left: UndoneFile[]): void {
    const { chat, text } = this;
    chat.leaveRewinding();
    if (text !== null && !chat.draft) {
      chat.letter = { type: "compose", text, files: [], send: false, newConversation: false, mode: null };
    }
    if (left.length > 0) {
      const said = left.map(({ path, problem }) => (problem ? `${path} (${problem})` : path));
      chat.fail(new Error(`These files could not be put back: ${said.join(", ")}.`));
    }
  }

  /** The last message to keep: this one, or of a prompt the one before it. */
  private async last(): Promise<string | null> {
    if (this.text === null) return this.messageId;
    for (;;) {
      const { messages, pageCursor } = this.chat.transcript;
      const index = messages.findIndex(({ messageId }) => messageId === this.messageId);
      const before = messages[index - 1];
      if (before) return before.messageId;
      if (index < 0) throw new Error("That message is not there any more.");
      if (pageCursor === null) return null;
      await this.chat.loadEarlier();
      if (this.chat.transcript.pageCursor === pageCursor) throw new Error("What came before it could not be loaded.");
    }
  }

  private request(wish: Wish, preview: boolean): Promise<RewindResult> {
    const { conversationId, toMessageId } = this;
    return this.chat.request("conversation/rewind", { conversationId, toMessageId, preview, ...wish });
  }

  private async trying(action: () => Promise<void>): Promise<void> {
    this.isBusy = true;
    this.problem = null;
    this.changed();
    try {
      await action();
    } catch (error) {
      const hint = error instanceof Refused ? error.hint : undefined;
      this.problem = worded((error as Error).message, hint);
    } finally {
      this.isBusy = false;
      this.changed();
    }
  }

  private get message() {
    return this.chat.transcript.messages.find(({ messageId }) => messageId === this.messageId);
  }
}

/** The sidecar's hint names a parameter; here there is a button. */
function worded(message: string, hint: string | undefined): string {
  if (!hint || hint.includes("`force`")) return message;
  return `${message} ${hint}`;
}

const ACTIONS: Record<string, string> = {
  restore: "will be put back",
  delete: "will be deleted: the agent made it",
  create: "will be made again: the agent deleted it",
};

/** What happens to a file, in words. */
export function fate({ action, state, problem }: UndoneFile): string {
  switch (state) {
    case "same":
      return "holds already what it held before";
    case "conflict":
      return "was changed since by somebody else";
    case "failed":
      return problem ?? "cannot be put back";
    default:
      return ACTIONS[action] ?? action;
  }
}
