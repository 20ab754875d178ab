/**
 * A transcript kept true from what the sidecar sends: catch-ups, events and deltas. It does no
 * work of its own; repeats and holes show by the numbers that everything carries.
 *
 * A message that has not changed stays the same object, so what shows it need not be drawn again.
 */
import type { CatchUp, Cursor, Delta, DurableEvent, Event, Message, OpenPart, Part } from "../src/protocol";

export type Applied = "new" | "known" | "hole";

export class Transcript {
  storeId = "";
  seq = 0;
  revision = 0;
  /** Asks for what came before the first message; null: nothing did. */
  pageCursor: string | null = null;
  isMissing = false;
  private list: Message[] = [];

  get messages(): readonly Message[] {
    return this.list;
  }

  /** The message that is being written. */
  get open(): Message | undefined {
    return this.list.findLast((message) => message.status === "streaming");
  }

  get cursor(): Cursor | null {
    if (!this.storeId) return null;
    const parts: OpenPart[] = this.list
      .filter((message) => message.status === "streaming")
      .flatMap(({ messageId, parts }) =>
        parts.flatMap((part, index) =>
          isText(part) ? [{ messageId, part: index, length: part.text.length }] : [],
        ),
      );
    return { storeId: this.storeId, seq: this.seq, revision: this.revision, parts };
  }

  /** The answer to a subscription that was made with `cursor`, or with none. */
  caughtUp(answer: CatchUp, storeId: string): void {
    this.storeId = storeId;
    this.isMissing = answer.kind === "missing";
    if (answer.kind === "missing") {
      this.list = [];
      return;
    }
    if (answer.kind === "snapshot") {
      this.list = [...answer.messages];
      this.pageCursor = answer.pageCursor ?? null;
    } else {
      for (const event of answer.events) if (event.seq > this.seq) this.change(event);
      if (answer.openMessage) this.put(answer.openMessage);
    }
    this.cut(answer.openParts);
    this.seq = answer.lastSeq;
    this.revision = answer.revision;
  }

  apply(event: Event): Applied {
    if (event.type === "delta") return this.append(event);
    if (event.seq <= this.seq) return "known";
    if (event.seq !== this.seq + 1 || !this.change(event)) return "hole";
    this.seq = event.seq;
    return "new";
  }

  /** A page from before the first message. Of another revision it is void. */
  prepend(messages: readonly Message[], pageCursor: string | null, revision: number): boolean {
    if (revision !== this.revision) return false;
    const known = new Set(this.list.map((message) => message.messageId));
    this.list = [...messages.filter((message) => !known.has(message.messageId)), ...this.list];
    this.pageCursor = pageCursor;
    return true;
  }

  /** What is stored of each open part; the deltas go on from there. */
  private cut(openParts: readonly OpenPart[]): void {
    for (const { messageId, part: index, length } of openParts) {
      const message = this.find(messageId);
      const part = message?.parts[index];
      if (message && part && isText(part) && part.text.length > length) {
        this.putPart(message, index, { ...part, text: part.text.slice(0, length) });
      }
    }
  }

  /** False: what the event builds on is not here. */
  private change(event: DurableEvent): boolean {
    switch (event.type) {
      case "messageStarted":
        this.put(begun(event));
        return true;
      case "messageCompleted":
        if (event.message) this.put(event.message);
        else this.list = this.list.filter((message) => message.messageId !== event.messageId);
        return true;
      case "toolStarted":
      case "toolFinished":
      case "turnSteered": {
        const message = this.find(event.messageId);
        if (!message || event.part > message.parts.length) return false;
        this.putPart(message, event.part, partOf(event));
        return true;
      }
      case "rewound":
        return this.rewind(event.toMessageId ?? null, event.revision);
      default:
        return true;
    }
  }

  private rewind(toMessageId: string | null, revision: number): boolean {
    const last = this.list.findIndex((message) => message.messageId === toMessageId);
    if (toMessageId !== null && last < 0) return false;
    this.list = this.list.slice(0, last + 1);
    this.revision = revision;
    return true;
  }

  private append(delta: Delta): Applied {
    if (delta.seq > this.seq) return "hole";
    const message = this.find(delta.messageId);
    // Of a message that has ended everything is here; of one that was not heard of, nothing.
    if (!message) return delta.seq < this.seq ? "known" : "hole";
    if (message.status !== "streaming") return "known";
    const part = message.parts[delta.part];
    const text = part && isText(part) ? part.text : "";
    if (delta.part > message.parts.length || delta.offset > text.length) return "hole";
    if (delta.offset + delta.text.length <= text.length) return "known";
    const grown = text + delta.text.slice(text.length - delta.offset);
    this.putPart(message, delta.part, { kind: delta.kind, text: grown });
    return "new";
  }

  private find(messageId: string): Message | undefined {
    return this.list.findLast((message) => message.messageId === messageId);
  }

  private put(message: Message): void {
    const index = this.list.findLastIndex((known) => known.messageId === message.messageId);
    this.list = index < 0 ? [...this.list, message] : this.list.with(index, message);
  }

  private putPart(message: Message, index: number, part: Part): void {
    const parts = [...message.parts];
    parts[index] = part;
    this.put({ ...message, parts });
  }
}

function isText(part: Part): part is Extract<Part, { kind: "text" | "thinking" }> {
  return part.kind === "text" || part.kind === "thinking";
}

function begun(event: Extract<Event, { type: "messageStarted" }>): Message {
  return {
    messageId: event.messageId,
    ordinal: event.ordinal ?? 0,
    role: event.role ?? "assistant",
    status: "streaming",
    parts: [],
    turnId: event.turnId,
    createdAt: event.at ?? 0,
  };
}

function partOf(event: Extract<Event, { type: "toolStarted" | "toolFinished" | "turnSteered" }>): Part {
  switch (event.type) {
    case "toolStarted":
      return {
        kind: "toolCall",
        toolCallId: event.toolCallId,
        name: event.name,
        arguments: event.arguments ?? {},
      };
    case "toolFinished":
      return {
        kind: "toolResult",
        toolCallId: event.toolCallId,
        content: event.content ?? "",
        isError: event.isError ?? false,
      };
    case "turnSteered":
      return { kind: "steering", text: event.text ?? "", by: event.by };
  }
}
