/**
 * A host of the chat that lives in its page, for tests in a browser: it answers as the extension
 * does, and streams when it is told to. Serialised into the page, so it uses nothing from here.
 */
import type { Event, Message } from "../src/protocol";
import type { ResponseError, State, ToHost, ToView } from "../src/shared/messages";

export interface FakeHost {
  /** What the document asked for, in order. */
  asked: { method: string; params: Record<string, unknown> }[];
  post(message: ToView): void;
  state(changes: Partial<State>): void;
  /** Say the next event of the shown conversation; numbers are filled in. */
  say(event: object): void;
  /** What it answers, by method; what is thrown is an error of the sidecar's. */
  answers: Record<string, (params: Record<string, unknown>) => unknown>;
  stored: Message[];
  /** Milliseconds from `ready` to the answer of the first subscription. */
  readyAt: number;
}

declare global {
  interface Window {
    fake: FakeHost;
    pwned?: number;
  }
}

export function installFake(options: { messages: number; conversationId: string | null }): void {
  const text = (index: number) => `Message ${index}: some **words** and \`code\`, enough of them to fill a line or two.`;
  const stored: Message[] = Array.from({ length: options.messages }, (_, index) => ({
    messageId: `m${index}`,
    ordinal: index,
    role: index % 2 ? "assistant" : "user",
    status: "complete",
    parts: [{ kind: "text", text: text(index) }],
    turnId: `t${index >> 1}`,
    createdAt: index,
  }));
  let seq = 1;
  let kept: unknown;
  const page = (end: number, limit: number) => {
    const start = Math.max(end - limit, 0);
    return { messages: stored.slice(start, end), revision: 0, pageCursor: start > 0 ? String(start) : null };
  };
  const head = { conversationId: options.conversationId ?? "new", title: "A conversation", mode: "chat" };
  const answers: FakeHost["answers"] = {
    "conversation/subscribe": () => {
      const { messages, pageCursor } = page(stored.length, 50);
      return { kind: "snapshot", conversationId: head.conversationId, lastSeq: seq, revision: 0, messages, pageCursor, openParts: [] };
    },
    "conversation/get": ({ cursor, limit }) => ({
      conversation: head,
      page: page(cursor ? Number(cursor) : stored.length, Number(limit)),
    }),
    "conversation/list": () => ({ conversations: [], deleted: [], changeNo: 1, cursor: null }),
    "persona/list": () => ({
      personas: [
        { personaId: "security", name: "Security", role: "Looks for what can be abused", instruction: "i", isBuiltIn: true },
        { personaId: "ada", name: "Ada", instruction: "You are Ada." },
      ],
    }),
    "message/queue": () => ({ entries: [] }),
    "conversation/create": () => head,
    "message/enqueue": () => ({ messageId: "p", position: 0 }),
    "editor/findFiles": () => ({ files: [{ uri: "file:///w/src/main.ts", path: "src/main.ts" }] }),
  };
  const settings = { provider: "offline" } as const;
  let state: State = {
    connection: { kind: "ready" },
    instance: 1,
    storeId: "s",
    degraded: null,
    settings,
    secretsPresent: [],
    problems: [],
    model: "Offline",
    trusted: true,
    agents: {},
    approvals: [],
    progress: {},
    deleting: [],
    editor: null,
    conversationId: options.conversationId,
    drafts: {},
  };
  const post = (message: ToView) => window.postMessage(message, "*");
  window.fake = {
    asked: [],
    answers,
    stored,
    post,
    readyAt: 0,
    state(changes) {
      state = { ...state, ...changes };
      post({ type: "state", state });
    },
    say(event) {
      const isDelta = (event as { type: string }).type === "delta";
      if (!isDelta) seq += 1;
      const full = { conversationId: head.conversationId, seq, ...event } as unknown as Event;
      post({ type: "events", events: [full] });
    },
  };
  const receive = (message: ToHost) => {
    if (message.type === "ready") {
      window.fake.readyAt = performance.now();
      post({ type: "state", state });
      return;
    }
    const params = (message.params ?? {}) as Record<string, unknown>;
    window.fake.asked.push({ method: message.method, params });
    const answer = answers[message.method] ?? (() => ({ ok: true }));
    try {
      post({ type: "response", id: message.id, result: answer(params) });
    } catch (error) {
      post({ type: "response", id: message.id, error: error as ResponseError });
    }
  };
  Object.assign(window, {
    acquireVsCodeApi: () => ({
      postMessage: (message: ToHost) => setTimeout(() => receive(structuredClone(message))),
      getState: () => kept,
      setState: (next: unknown) => {
        kept = structuredClone(next);
      },
    }),
  });
}
