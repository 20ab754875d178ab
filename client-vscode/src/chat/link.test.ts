import { afterEach, beforeEach, expect, test, vi } from "vitest";

import type { Event } from "../protocol";
import type { State, ToView } from "../shared/messages";
import { FRAME_MILLISECONDS, MOST_OUTPUT } from "./batches";
import { Link, type LinkHost } from "./link";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function linked(changes: Partial<LinkHost> = {}) {
  const posted: ToView[] = [];
  const calls: unknown[][] = [];
  const note =
    (name: string) =>
    (...given: unknown[]) => {
      calls.push([name, ...given]);
    };
  const host: LinkHost = {
    state: () => ({ instance: 1 }) as State,
    request: async (method, params) => {
      calls.push([method, params]);
      return { ok: true } as never;
    },
    act: async (_link, method, params) => {
      calls.push([method, params]);
      return { ok: true } as never;
    },
    appeared: () => note("appeared")(),
    vanished: () => note("vanished")(),
    forsaken: note("forsaken"),
    warn: note("warn"),
    ...changes,
  };
  return { link: new Link("w", host, (message) => posted.push(message)), posted, calls };
}

const delta = (offset: number, conversationId = "c"): Event =>
  ({ type: "delta", conversationId, seq: 1, messageId: "m", part: 0, kind: "text", offset, text: "x" }) as Event;
const ask = (method: string, params: unknown, id = 1) => ({ type: "request", id, method, params });

test("before it is ready a document gets nothing, and then the state first", async () => {
  const { link, posted } = linked();
  link.send({ type: "changed", changeNo: 1 });
  expect(posted).toEqual([]);
  await link.receive({ type: "ready" });
  link.send({ type: "changed", changeNo: 2 });
  expect(posted.map(({ type }) => type)).toEqual(["state", "changed"]);
});

test("events are gathered for a frame, and come before what was said after them", async () => {
  const { link, posted } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask("conversation/subscribe", { conversationId: "c" }));
  posted.length = 0;
  for (let offset = 0; offset < 2_000; offset += 1) link.event(delta(offset));
  expect(posted).toEqual([]);
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  expect(posted).toMatchObject([{ type: "events", events: { length: 2_000 } }]);
  link.event(delta(2_000));
  link.send({ type: "changed", changeNo: 1 });
  expect(posted.slice(1).map(({ type }) => type)).toEqual(["events", "changed"]);
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  expect(posted).toHaveLength(3);
});

test("only conversations that it follows are told to a document", async () => {
  const { link, posted, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask("conversation/subscribe", { conversationId: "c" }));
  posted.length = 0;
  link.event(delta(0, "another"));
  await link.receive(ask("conversation/unsubscribe", { conversationId: "c" }));
  link.event(delta(0));
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  expect(posted.map(({ type }) => type)).toEqual(["response"]);
  expect(calls).toContainEqual(["forsaken", "c"]);
});

test("what a tool puts out comes after the events of its frame, and only its end", async () => {
  const { link, posted } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask("conversation/subscribe", { conversationId: "c" }));
  posted.length = 0;
  const output = (text: string, conversationId = "c") => ({ conversationId, turnId: "t", toolCallId: "x", text });
  for (let count = 0; count < 10_000; count += 1) link.output(output(`${count}\n`));
  link.output(output("elsewhere", "another"));
  link.event(delta(0));
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  expect(posted.map(({ type }) => type)).toEqual(["events", "output"]);
  const [, said] = posted;
  expect(said?.type === "output" && said.text).toMatch(/9998\n9999\n$/);
  expect(said?.type === "output" && said.text.length).toBe(MOST_OUTPUT);
  link.output(output("unseen"));
  link.end();
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  expect(posted).toHaveLength(2);
});

test("a document that is hidden gets nothing, follows nothing, and begins anew", async () => {
  const { link, posted, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask("conversation/subscribe", { conversationId: "c" }));
  link.event(delta(0));
  link.end();
  link.end();
  posted.length = 0;
  vi.advanceTimersByTime(FRAME_MILLISECONDS);
  link.send({ type: "changed", changeNo: 1 });
  expect(posted).toEqual([]);
  expect(calls.filter(([name]) => name === "vanished")).toHaveLength(1);
  expect(calls).toContainEqual(["forsaken", "c"]);
  await link.receive({ type: "ready" });
  expect(posted.map(({ type }) => type)).toEqual(["state"]);
});

test("an answer for a document that was there before is not given to its successor", async () => {
  const answers: ((result: never) => void)[] = [];
  const { link, posted } = linked({ request: () => new Promise((resolve) => answers.push(resolve)) });
  await link.receive({ type: "ready" });
  const old = link.receive(ask("conversation/list", {}, 1));
  link.end();
  await link.receive({ type: "ready" });
  const fresh = link.receive(ask("conversation/search", { query: "x" }, 1));
  posted.length = 0;
  answers[0]?.("old" as never);
  answers[1]?.("new" as never);
  await Promise.all([old, fresh]);
  expect(posted).toEqual([{ type: "response", id: 1, result: "new" }]);
});

test.each([
  null,
  7,
  "ready",
  {},
  { type: "other" },
  { type: "request" },
  { type: "request", id: "1", method: "agent/cancel", params: {} },
  { type: "request", id: 1, method: 7, params: {} },
])("%j is no message", async (said) => {
  const { link, posted, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(said);
  expect(posted.map(({ type }) => type)).toEqual(["state"]);
  expect(calls.map(([name]) => name)).toEqual(["appeared", "warn"]);
});

test.each([
  ["settings/update", { settings: { provider: "openai", openaiBaseUrl: "http://evil.test" } }],
  ["conversation/delete", { conversationId: "c" }],
  ["conversation/export", { conversationId: "c", path: "/etc/passwd" }],
  ["conversation/import", { path: "/etc/passwd" }],
  ["agent/grant", { fromConversationId: "a", toConversationId: "b" }],
  ["store/prune", { dryRun: false }],
  ["rule/remove", { rule: { tool: "run", argv: ["make"], root: "/w" } }],
  ["persona/save", { persona: { personaId: "x", name: "X", instruction: "obey" } }],
  ["feedback/run", { contextFiles: [{ uri: "file:///etc/passwd" }] }],
  ["audit/read", {}],
  ["workbench.action.terminal.new", {}],
  ["constructor", {}],
  ["__proto__", {}],
  ["toString", {}],
  ["hasOwnProperty", {}],
])("a document may not ask for %s", async (method, params) => {
  const { link, posted, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask(method, params));
  expect(posted[1]).toMatchObject({ type: "response", id: 1, error: { code: -32601 } });
  expect(calls).toEqual([["appeared"]]);
});

test.each([
  ["conversation/subscribe", {}],
  ["conversation/subscribe", { conversationId: "" }],
  ["conversation/subscribe", { conversationId: "c", cursor: { storeId: 1 } }],
  ["message/enqueue", { conversationId: "c", input: "x" }],
  ["message/enqueue", { conversationId: "c", input: "x".repeat(5_000_000), requestKey: "k" }],
  ["approval/respond", { approvalId: "a", contentHash: "h", decision: "always" }],
  ["approval/respond", { approvalId: "a", contentHash: "h", decision: "allow", always: "yes" }],
  ["conversation/rewind", { conversationId: "c", toMessageId: "m", force: 1 }],
  ["build/start", { conversationId: "c", task: "x" }],
  ["conversation/setMode", { conversationId: "c", mode: "root" }],
  ["editor/openLink", {}],
  ["editor/context", { what: "everything" }],
  ["chat/show", "c"],
])("%s with params that do not fit goes nowhere", async (method, params) => {
  const { link, posted, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask(method, params));
  expect(posted[1]).toMatchObject({ type: "response", error: { code: -32602 } });
  expect(calls).toEqual([["appeared"]]);
});

test("what is not known of the params does not reach the sidecar", async () => {
  const { link, calls } = linked();
  await link.receive({ type: "ready" });
  await link.receive(ask("message/enqueue", { conversationId: "c", input: "x", requestKey: "k", systemInstruction: "obey" }));
  expect(calls[1]).toEqual(["message/enqueue", { conversationId: "c", input: "x", requestKey: "k" }]);
});

test("an error has its code and what to do", async () => {
  const request = () => Promise.reject(Object.assign(new Error("no"), { code: -32060, data: { hint: "wait" } }));
  const { link, posted } = linked({ request });
  await link.receive({ type: "ready" });
  await link.receive(ask("agent/cancel", { conversationId: "c" }, 9));
  expect(posted[1]).toEqual({ type: "response", id: 9, error: { code: -32060, message: "no", hint: "wait" } });
});
