import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, describe, expect, test, vi } from "vitest";

import type { AgentInfo, Approval, Event, Methods } from "../protocol";
import type { ToView } from "../shared/messages";
import { Sidecar } from "../sidecar/sidecar";
import { isMissing, realLaunch, Watch } from "../testing";
import { Hub, type HubHost, type Memory } from "./hub";
import type { Place } from "./link";

class Kept implements Memory {
  readonly values = new Map<string, unknown>();
  get<T>(key: string): T | undefined {
    return this.values.get(key) as T | undefined;
  }
  async update(key: string, value: unknown): Promise<void> {
    this.values.set(key, value);
  }
}

/** Answers each request when it is told to. */
class FakeSidecar {
  connection = { kind: "ready" };
  instance = 1;
  storeId = "s";
  degraded = null;
  readonly asked: { method: string; params: unknown; answer: (result: unknown) => void }[] = [];
  notify = vi.fn();

  request(method: string, params: unknown): Promise<unknown> {
    return new Promise((answer) => this.asked.push({ method, params, answer }));
  }

  async answer(method: keyof Methods, result: unknown): Promise<void> {
    const index = this.asked.findIndex((one) => one.method === method);
    expect(index, `nobody asks for ${method}`).toBeGreaterThanOrEqual(0);
    this.asked.splice(index, 1)[0]?.answer(result);
    await vi.waitFor(() => undefined);
  }

  get methods(): string[] {
    return this.asked.map(({ method }) => method);
  }
}

function hubOf(sidecar: unknown, changes: Partial<HubHost> = {}) {
  const memory = new Kept();
  const questions: string[] = [];
  const hub = new Hub({
    sidecar: sidecar as Sidecar,
    memory,
    isTrusted: () => true,
    editor: () => null,
    warn: () => undefined,
    alarm: () => undefined,
    asked: ({ approvalId }) => questions.push(approvalId),
    changed: () => undefined,
    actions: {} as HubHost["actions"],
    ...changes,
  });
  return { hub, memory, questions };
}

function documentIn(hub: Hub, name = "w", place: Place & { shown?: string | null } = {}) {
  const posted: ToView[] = [];
  const link = hub.link(name, (message) => posted.push(message), place);
  let count = 0;
  const ask = (method: string, params: unknown) =>
    link.receive({ type: "request", id: (count += 1), method, params });
  return { link, posted, ask, ready: () => link.receive({ type: "ready" }) };
}

const agent = (conversationId: string, isProcessing: boolean) =>
  ({ conversationId, isProcessing, ownedHere: true, state: isProcessing ? "BUSY" : "IDLE" }) as AgentInfo;
const question = (approvalId: string, conversationId = "c") => ({ approvalId, conversationId }) as Approval;
const asks = (approval: Approval): Event =>
  ({ type: "approvalRequested", conversationId: approval.conversationId, seq: 1, approval }) as Event;

test("how far a turn is, is known until that turn ends or its process does", async () => {
  const { hub } = hubOf(new FakeSidecar());
  const { link, ready } = documentIn(hub);
  await ready();
  const progress = (done: number) =>
    hub.heard("conversation/event", { type: "progress", conversationId: "c", seq: done, turnId: "t", done, total: 2, label: "x" });
  const ended = (turnId: string | null) =>
    hub.heard("conversation/event", { type: "turnEnded", conversationId: "c", seq: 9, messageId: "m", stopReason: "endTurn", turnId });
  const shown = () => hub.state(link).progress["c"];
  progress(1);
  expect(shown()).toEqual({ turnId: "t", done: 1, total: 2, label: "x" });
  ended(null); // a prompt that waited was removed
  expect(shown()?.done).toBe(1);
  ended("t");
  expect(shown()).toBeUndefined();
});

test("an answer that is older than what was heard since does not undo it", async () => {
  const sidecar = new FakeSidecar();
  const { hub } = hubOf(sidecar);
  const learned = hub.learn();
  await sidecar.answer("agent/list", { agents: [agent("c", true)] });
  hub.heard("agent/state", agent("c", false));
  hub.heard("conversation/event", asks(question("early")));
  await sidecar.answer("approval/list", { approvals: [question("early")] });
  await sidecar.answer("settings/get", { settings: {}, secretsPresent: [], problems: [] });
  await learned;
  expect(hub.agent("c")?.isProcessing).toBe(false);
  expect(hub.questions).toBe(1);
});

test("the same question is one question", () => {
  const { hub } = hubOf(new FakeSidecar());
  for (let time = 0; time < 2; time += 1) hub.heard("conversation/event", asks(question("a")));
  expect(hub.questions).toBe(1);
});

test("a turn that nobody looks at is followed until it ends", async () => {
  const sidecar = new FakeSidecar();
  const { hub } = hubOf(sidecar);
  hub.heard("agent/state", agent("c", true));
  expect(sidecar.methods).toEqual(["conversation/subscribe"]);
  await sidecar.answer("conversation/subscribe", { kind: "snapshot" });
  await sidecar.answer("approval/list", { approvals: [] });
  hub.heard("agent/state", agent("c", true));
  expect(sidecar.methods).toEqual([]);
  hub.heard("agent/state", agent("c", false));
  expect(sidecar.methods).toEqual(["conversation/unsubscribe"]);
});

test("whoever goes, a conversation is told of as long as somebody reads it", async () => {
  const sidecar = new FakeSidecar();
  const { hub } = hubOf(sidecar);
  const [first, second] = [documentIn(hub, "1"), documentIn(hub, "2")];
  await Promise.all([first.ready(), second.ready()]);
  for (const one of [first, second]) void one.ask("conversation/subscribe", { conversationId: "c" });
  const heard: Event[] = [];
  const reading = hub.read("c", (event) => heard.push(event));
  hub.unlink(first.link);
  second.link.end();
  expect(sidecar.methods).not.toContain("conversation/unsubscribe");
  hub.heard("conversation/event", asks(question("a")));
  hub.heard("conversation/event", asks(question("b", "another")));
  expect(heard).toHaveLength(1);
  hub.heard("conversation/event", { type: "approvalResolved", conversationId: "c", approvalId: "a" } as Event);
  reading.dispose();
  expect(sidecar.methods).toContain("conversation/unsubscribe");
});

test("two documents each hear what they follow, and one that goes takes nothing from the other", async () => {
  const sidecar = new FakeSidecar();
  const { hub } = hubOf(sidecar);
  const [first, second] = [documentIn(hub, "1"), documentIn(hub, "2")];
  await Promise.all([first.ready(), second.ready()]);
  void first.ask("conversation/subscribe", { conversationId: "c" });
  void second.ask("conversation/subscribe", { conversationId: "d" });
  const delta = { type: "delta", conversationId: "c", seq: 1, messageId: "m", part: 0, kind: "text", offset: 0, text: "x" } as Event;
  hub.heard("conversation/event", delta);
  hub.heard("conversations/changed", { changeNo: 7 });
  expect(first.posted.map(({ type }) => type)).toEqual(["state", "events", "changed"]);
  expect(second.posted.map(({ type }) => type)).toEqual(["state", "changed"]);
  hub.unlink(second.link);
  expect(sidecar.asked.at(-1)).toMatchObject({ method: "conversation/unsubscribe", params: { conversationId: "d" } });
});

test("what a command wants goes to the document that is used, or waits for the first", async () => {
  const { hub } = hubOf(new FakeSidecar());
  expect([hub.deliver({ type: "show", conversationId: "a" }), hub.deliver({ type: "show", conversationId: "b" })]).toEqual([false, false]);
  const shown: string[] = [];
  const view = documentIn(hub, "view", { reveal: () => shown.push("view") });
  const tab = documentIn(hub, "tab", { reveal: () => shown.push("tab"), isTab: true });
  await view.ready();
  await tab.ready();
  expect(view.posted.slice(1)).toEqual([
    { type: "show", conversationId: "a" },
    { type: "show", conversationId: "b" },
  ]);
  await tab.ask("chat/show", { conversationId: "t" });
  expect(hub.deliver({ type: "show", conversationId: "c" })).toBe(true);
  tab.link.end();
  expect(hub.deliver({ type: "show", conversationId: "d" })).toBe(true);
  expect(shown).toEqual(["tab", "view"]);
});

test("the view opens with what it showed the last time, whatever a tab shows", async () => {
  const { hub, memory } = hubOf(new FakeSidecar());
  const [view, tab] = [documentIn(hub, "view"), documentIn(hub, "tab", { isTab: true, shown: "t" })];
  await Promise.all([view.ready(), tab.ready()]);
  await view.ask("chat/show", { conversationId: "v" });
  await tab.ask("chat/show", { conversationId: "t" });
  expect(hub.shown).toBe("t");
  hub.unlink(tab.link);
  expect(hub.shown).toBe("v");
  expect(memory.get("shown")).toBe("v");
});

describe.skipIf(isMissing)("with the real sidecar", () => {
  let running: Sidecar | undefined;
  afterEach(() => running?.stop());

  async function open() {
    const launch = realLaunch();
    const folder = pathToFileURL(mkdtempSync(path.join(tmpdir(), "workspace-"))).toString();
    const watch = new Watch();
    const sidecar: Sidecar = new Sidecar({
      plan: async () => launch,
      options: async () => ({ protocolVersions: [1], settings: { provider: "scripted" }, webviewId: "extension" }),
      folders: () => [{ uri: folder, name: "w" }],
      log: () => undefined,
      say: () => undefined,
      changed: () => void hub.sidecarChanged(),
      heard: (method, params) => hub.heard(method, params),
      answers: {},
    });
    const { hub, questions } = hubOf(sidecar, { changed: watch.look });
    running = sidecar;
    await sidecar.start();
    return { sidecar, hub, questions, watch };
  }

  test("a question of a turn that nobody looks at is heard, and is over when it is answered", async () => {
    const { sidecar, hub, questions, watch } = await open();
    const { ask, ready, link, posted } = documentIn(hub);
    await ready();
    const conversationId = "c";
    await ask("conversation/create", { conversationId, mode: "build" });
    await ask("conversation/subscribe", { conversationId });
    await ask("message/enqueue", {
      conversationId,
      input: 'tool create {"path": "new.txt", "text": "hello"}',
      requestKey: "k",
    });
    link.end();
    await watch.until(() => hub.questions === 1);
    expect(questions).toHaveLength(1);

    await ready();
    const [asked] = posted.flatMap((message) => (message.type === "state" ? message.state.approvals : []));
    expect(asked?.approvalId).toBe(questions[0]);
    link.end();
    const { approvalId = "", contentHash = "" } = asked ?? {};
    await sidecar.request("approval/respond", { approvalId, contentHash, decision: "deny" });
    await watch.until(() => hub.questions === 0);
    await watch.until(() => hub.agent(conversationId)?.isProcessing !== true);
  });

  test("two documents of one conversation both have all of an answer", async () => {
    const { sidecar, hub } = await open();
    const conversationId = "c";
    await sidecar.request("conversation/create", { conversationId });
    const [first, second] = [documentIn(hub, "1"), documentIn(hub, "2")];
    for (const one of [first, second]) {
      await one.ready();
      await one.ask("conversation/subscribe", { conversationId });
    }
    await sidecar.request("message/send", { conversationId, input: "repeat 200 x" });
    await vi.waitFor(() => {
      for (const { posted } of [first, second]) {
        const events = posted.flatMap((message) => (message.type === "events" ? message.events : []));
        expect(events.filter(({ type }) => type === "turnEnded")).toHaveLength(1);
        const text = events.flatMap((event) => (event.type === "delta" ? [event.text] : [])).join("");
        expect(text.replaceAll(/\s/g, "")).toBe("x".repeat(200));
      }
    });
  });

  test("a document that comes in the middle of an answer takes nothing of it from the one that is there", async () => {
    const { sidecar, hub } = await open();
    const conversationId = "c";
    await sidecar.request("conversation/create", { conversationId });
    const [first, second] = [documentIn(hub, "1"), documentIn(hub, "2")];
    await Promise.all([first.ready(), second.ready()]);
    await first.ask("conversation/subscribe", { conversationId });
    const sent = sidecar.request("message/send", { conversationId, input: "repeat 3000 x" });
    let isOver = false;
    void sent.finally(() => (isOver = true));
    let times = 0;
    while (!isOver) {
      await second.ask("conversation/subscribe", { conversationId });
      times += 1;
    }
    await sent;
    expect(times).toBeGreaterThan(1);
    const heard = () => first.posted.flatMap((message) => (message.type === "events" ? message.events : []));
    await vi.waitFor(() => expect(heard().at(-1)?.type).toBe("turnEnded"));
    let length = 0;
    let seq = 0;
    for (const event of heard()) {
      if (event.type === "delta") {
        expect(event.offset).toBeLessThanOrEqual(length);
        length = Math.max(length, event.offset + event.text.length);
      } else {
        expect(event.seq).toBe((seq += 1));
      }
    }
  });
});
