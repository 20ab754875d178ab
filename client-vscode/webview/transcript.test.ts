import { describe, expect, test } from "vitest";

import type { CatchUp, Cursor, Event, Message, Part } from "../src/protocol";
import { Transcript } from "./transcript";

/** The same numbers for the same seed, so that a failure can be played again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A conversation as the sidecar has it: what is true, what was said of it, and what it answers. */
class Truth {
  readonly messages: Message[] = [];
  readonly said: Event[] = [];
  seq = 0;
  revision = 0;

  constructor(private readonly pick: (below: number) => number) {}

  step(): void {
    const open = this.messages.find((message) => message.status === "streaming");
    if (!open) {
      if (this.messages.length > 2 && this.pick(12) === 0) this.rewind();
      else this.begin();
    } else if (this.pick(20) === 0) this.finish(open);
    else if (this.pick(12) === 0) this.useTool(open);
    else this.write(open);
  }

  /** What a reader is told who has `cursor`. */
  catchUp(cursor: Cursor | null): CatchUp {
    const open = this.messages.find((message) => message.status === "streaming");
    const openParts = (open?.parts ?? []).flatMap((part, index) =>
      part.kind === "text" ? [{ messageId: open?.messageId ?? "", part: index, length: part.text.length }] : [],
    );
    const common = { conversationId: "c", lastSeq: this.seq, revision: this.revision, openParts };
    if (!cursor || cursor.storeId !== "s" || this.pick(5) === 0) {
      return { kind: "snapshot", messages: structuredClone(this.messages), ...common };
    }
    const events = this.said.filter((event) => event.type !== "delta" && event.seq > cursor.seq);
    return {
      kind: "replay",
      events: structuredClone(events) as never,
      openMessage: open ? structuredClone(open) : null,
      ...common,
    };
  }

  private say(event: object): void {
    this.said.push(structuredClone({ conversationId: "c", seq: this.seq, ...event }) as Event);
  }

  private begin(): void {
    const messageId = `m${this.messages.length}-${this.seq}`;
    this.seq += 1;
    this.messages.push({ messageId, ordinal: this.seq, role: "assistant", status: "streaming", parts: [], turnId: "t", createdAt: 0 });
    this.say({ type: "messageStarted", messageId, turnId: "t", ordinal: this.seq });
  }

  private write(message: Message): void {
    const last = message.parts.at(-1);
    const index = last?.kind === "text" && this.pick(10) ? message.parts.length - 1 : message.parts.length;
    const part = (message.parts[index] ??= { kind: "text", text: "" });
    if (part.kind !== "text") return;
    const text = ["a", "bc", "😀", "\n", "é"][this.pick(5)] ?? "";
    this.say({ type: "delta", messageId: message.messageId, part: index, kind: "text", offset: part.text.length, text });
    part.text += text;
  }

  private useTool(message: Message): void {
    const toolCallId = `call-${this.seq}`;
    const add = (part: Part, type: string, more: object) => {
      this.seq += 1;
      message.parts.push(part);
      this.say({ type, messageId: message.messageId, turnId: "t", toolCallId, part: message.parts.length - 1, ...more });
    };
    add({ kind: "toolCall", toolCallId, name: "look", arguments: {} }, "toolStarted", { name: "look", arguments: {} });
    add({ kind: "toolResult", toolCallId, content: "x", isError: false }, "toolFinished", { content: "x", isError: false });
  }

  private finish(message: Message): void {
    this.seq += 1;
    message.status = "complete";
    this.say({ type: "messageCompleted", messageId: message.messageId, message });
  }

  private rewind(): void {
    const keep = this.pick(this.messages.length);
    this.seq += 1;
    this.revision += 1;
    this.messages.splice(keep);
    this.say({ type: "rewound", toMessageId: this.messages.at(-1)?.messageId ?? null, revision: this.revision });
  }
}

describe("whatever is lost, repeated or cut off, the transcript is the stored one in the end", () => {
  test.each(Array.from({ length: 300 }, (_, seed) => seed))("seed %i", (seed) => {
    const pick = random(seed);
    const truth = new Truth(pick);
    const transcript = new Transcript();
    let told = 0;
    let isThere = false;
    const subscribe = () => {
      transcript.caughtUp(truth.catchUp(transcript.cursor), "s");
      told = truth.said.length;
      isThere = true;
    };
    const hear = (event: Event) => {
      if (transcript.apply(event) === "hole") subscribe();
    };
    for (let step = 0; step < 400; step += 1) {
      truth.step();
      switch (pick(40)) {
        case 0:
          isThere = false; // hidden
          break;
        case 1:
          subscribe();
          break;
        case 2:
          for (const event of truth.said.slice(-5)) transcript.apply(event); // repeated
          break;
        case 3:
          told = truth.said.length; // dropped on the way
          break;
      }
      if (isThere) while (told < truth.said.length) hear(truth.said[told++] as Event);
    }
    subscribe();
    expect(transcript.messages).toEqual(truth.messages);
  });
});

test("a message that did not change stays the same object", () => {
  const pick = random(7);
  const truth = new Truth(pick);
  for (let step = 0; step < 200; step += 1) truth.step();
  const transcript = new Transcript();
  transcript.caughtUp(truth.catchUp(null), "s");
  const before = transcript.messages;
  const told = truth.said.length;
  while (truth.said.length === told) truth.step();
  for (const event of truth.said.slice(told)) transcript.apply(event);
  const same = before.filter((message, index) => transcript.messages[index] === message);
  expect(same.length).toBeGreaterThanOrEqual(before.length - 1);
});

test("a page of another revision is void, and what is there already does not come twice", () => {
  const message = (messageId: string): Message => ({ messageId, ordinal: 0, role: "user", status: "complete", parts: [], createdAt: 0 });
  const transcript = new Transcript();
  const snapshot = { kind: "snapshot", conversationId: "c", lastSeq: 9, revision: 2, messages: [message("b")], pageCursor: "p", openParts: [] } as const;
  transcript.caughtUp({ ...snapshot, messages: [...snapshot.messages], openParts: [] }, "s");
  expect(transcript.prepend([message("a")], null, 1)).toBe(false);
  expect(transcript.prepend([message("a"), message("b")], null, 2)).toBe(true);
  expect(transcript.messages.map(({ messageId }) => messageId)).toEqual(["a", "b"]);
  expect(transcript.pageCursor).toBeNull();
});

test("what is not there any more leaves nothing", () => {
  const transcript = new Transcript();
  transcript.caughtUp({ kind: "missing", conversationId: "c" }, "s");
  expect(transcript.isMissing).toBe(true);
  expect(transcript.messages).toEqual([]);
});
