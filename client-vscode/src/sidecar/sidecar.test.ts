import { afterEach, describe, expect, test } from "vitest";

import type { Event } from "../protocol";
import { isMissing, realLaunch, Watch } from "../testing";
import { logLine, type LogLine } from "./connection";
import { NothingToStart, type Launch } from "./launch";
import { Restarts } from "./restarts";
import { Sidecar, SidecarGone } from "./sidecar";

const KEY = "canary-4711";
let running: Sidecar | undefined;
afterEach(() => running?.stop());

function supervised(plan: () => Promise<Launch>, restarts = new Restarts(), patience?: number) {
  const watch = new Watch();
  const logged: LogLine[] = [];
  const events: Event[] = [];
  const sidecar = new Sidecar(
    {
      plan,
      options: async () => ({
        protocolVersions: [1],
        settings: { provider: "scripted" },
        secrets: { openaiApiKey: KEY },
      }),
      folders: () => [],
      log: (line) => logged.push(line),
      say: () => undefined,
      changed: watch.look,
      heard: (method, params) => {
        if (method === "conversation/event") events.push(params as Event);
        watch.look();
      },
      answers: {},
    },
    restarts,
    patience,
  );
  running = sidecar;
  return { sidecar, watch, logged, events };
}

/** Its process, which has to be there. */
function pid(sidecar: Sidecar): number {
  expect(sidecar.pid).toBeTypeOf("number");
  return sidecar.pid as number;
}

function exists(process_: number): boolean {
  try {
    return process.kill(process_, 0);
  } catch {
    return false;
  }
}

describe.skipIf(isMissing)("the real sidecar", () => {
  test("is started once however often it is asked for, answers, and leaves when it is told to", async () => {
    const launch = realLaunch();
    const { sidecar, watch, logged } = supervised(async () => launch);
    await Promise.all([sidecar.start(), sidecar.start()]);
    await watch.until(() => sidecar.connection.kind === "ready");
    expect(sidecar.instance).toBe(1);
    expect(sidecar.storeId).not.toBe("");
    const { secretsPresent } = await sidecar.request("settings/get", {});
    expect(secretsPresent).toEqual(["openaiApiKey"]);
    const process_ = pid(sidecar);
    await sidecar.stop();
    await expect.poll(() => exists(process_)).toBe(false);
    await expect(sidecar.request("settings/get", {})).rejects.toBeInstanceOf(SidecarGone);
    expect(JSON.stringify(logged)).not.toContain(KEY);
  });

  test("asked before it is there, it answers when it is", async () => {
    const { sidecar } = supervised(async () => realLaunch());
    const early = sidecar.request("agent/count", {});
    await sidecar.start();
    expect(await early).toEqual({ count: 0 });
  });

  test("killed in the middle of a turn it comes back, and the prompt is answered once", async () => {
    const launch = realLaunch();
    const { sidecar, watch, events } = supervised(async () => launch);
    await sidecar.start();
    const { conversationId } = await sidecar.request("conversation/create", {});
    await sidecar.request("conversation/subscribe", { conversationId });
    const sent = sidecar.request("message/send", { conversationId, input: "echo one two three" });
    await watch.until(() => events.some((event) => event.type === "turnStarted"));
    const first = pid(sidecar);
    const cut = Promise.allSettled([sent]);
    process.kill(first, "SIGKILL");
    await watch.until(() => sidecar.instance === 2 && sidecar.connection.kind === "ready");
    expect(pid(sidecar)).not.toBe(first);
    await cut;
    await sidecar.request("conversation/subscribe", { conversationId, cursor: null });
    const { entries } = await sidecar.request("message/queue", { conversationId });
    if (entries.length) await watch.until(() => events.some((event) => event.type === "turnEnded"));
    const { page } = await sidecar.request("conversation/get", { conversationId });
    const said = page.messages.map(({ role, parts }) => [role, ...parts]);
    expect(said[0]).toEqual(["user", { kind: "text", text: "echo one two three" }]);
    expect(said.filter(([role]) => role === "user")).toHaveLength(1);
  });

  test("what it was asked when it was killed fails once it is known that it is gone", async () => {
    const launch = realLaunch();
    const { sidecar } = supervised(async () => launch);
    await sidecar.start();
    process.kill(pid(sidecar), "SIGSTOP");
    const asked = sidecar.request("agent/count", {}).catch((error: Error) => [error, sidecar.connection.kind]);
    process.kill(pid(sidecar), "SIGKILL");
    expect(await asked).toEqual([expect.any(SidecarGone), "starting"]);
  });

  test("told to start anew it is another process at once", async () => {
    const launch = realLaunch();
    const { sidecar } = supervised(async () => launch);
    await sidecar.start();
    const first = pid(sidecar);
    await sidecar.restart();
    expect(sidecar.instance).toBe(2);
    await expect.poll(() => exists(first)).toBe(false);
  });

  test("told to start anew while it starts, it is there in the end, once", async () => {
    const launch = realLaunch();
    const { sidecar, watch } = supervised(async () => launch);
    const first = sidecar.start();
    await expect.poll(() => sidecar.pid, { interval: 5 }).toBeDefined();
    expect(sidecar.instance).toBe(0);
    const left = pid(sidecar);
    await Promise.all([first, sidecar.restart(), sidecar.restart()]);
    await watch.until(() => sidecar.connection.kind === "ready");
    expect(sidecar.instance).toBe(1);
    expect(pid(sidecar)).not.toBe(left);
    await expect.poll(() => exists(left)).toBe(false);
    expect(await sidecar.request("agent/count", {})).toEqual({ count: 0 });
  });

  test("what was found before it was told to start anew is not what is started", async () => {
    const found: ((launch: Launch) => void)[] = [];
    const { sidecar, watch, logged } = supervised(() => new Promise((resolve) => found.push(resolve)));
    const first = sidecar.start();
    const second = sidecar.restart();
    await expect.poll(() => found.length).toBe(2);
    found[1]?.({ ...realLaunch(), title: "the second" });
    found[0]?.({ ...realLaunch(), title: "the first" });
    await Promise.all([first, second]);
    await watch.until(() => sidecar.connection.kind === "ready");
    expect(logged.map(({ message }) => message).filter((line) => line.startsWith("starting"))).toEqual(["starting the second"]);
    expect(sidecar.instance).toBe(1);
  });

  test("nothing is started for a window that was closed meanwhile", async () => {
    let found: (launch: Launch) => void = () => undefined;
    const { sidecar } = supervised(() => new Promise((resolve) => (found = resolve)));
    const started = sidecar.start();
    await sidecar.stop();
    found(realLaunch());
    await started;
    expect(sidecar.pid).toBeUndefined();
    await expect(sidecar.request("agent/count", {})).rejects.toBeInstanceOf(SidecarGone);
  });

  test("while it is started anew, what is asked waits for the new one", async () => {
    const launch = realLaunch();
    const { sidecar } = supervised(async () => launch);
    await sidecar.start();
    const again = sidecar.restart();
    expect(sidecar.connection.kind).toBe("starting");
    expect(await sidecar.request("agent/count", {})).toEqual({ count: 0 });
    expect(sidecar.instance).toBe(2);
    await again;
  });

  test("one that hangs is ended when it is told to start anew", async () => {
    const launch = realLaunch();
    const { sidecar } = supervised(async () => launch);
    await sidecar.start();
    const hung = pid(sidecar);
    process.kill(hung, "SIGSTOP");
    await sidecar.restart();
    await expect.poll(() => exists(hung)).toBe(false);
    expect(sidecar.instance).toBe(2);
  });

  test("one that does not answer is not waited for for ever", async () => {
    const silent = realLaunch(["-c", "import time; time.sleep(1000)"]);
    class Once extends Restarts {
      override next = () => null;
    }
    const { sidecar, watch, logged } = supervised(async () => silent, new Once(), 200);
    await sidecar.start();
    await watch.until(() => sidecar.connection.kind === "failed");
    expect(logged.map(({ message }) => message)).toContain("no answer to initialize within 0.2 s");
  });

  test("one that cannot start is tried a few times and then explained", async () => {
    const broken = realLaunch(["-c", "import sys; sys.exit('no such thing as a sidecar')"]);
    class Hasty extends Restarts {
      override next(): number | null {
        return super.next() === null ? null : 0;
      }
    }
    let starts = 0;
    const { sidecar, watch } = supervised(async () => {
      starts += 1;
      return broken;
    }, new Hasty());
    await sidecar.start();
    await watch.until(() => sidecar.connection.kind === "failed");
    expect(starts).toBe(6);
    expect(sidecar.connection).toMatchObject({
      title: "The sidecar keeps ending.",
      detail: expect.stringContaining("no such thing as a sidecar"),
      actions: ["restart", "showLog", "pickInterpreter"],
    });
    await expect(sidecar.request("agent/count", {})).rejects.toBeInstanceOf(SidecarGone);
  });
});

test("nothing to start is said with what was tried, and another try may find something", async () => {
  let plan: () => Promise<Launch> = () => Promise.reject(new NothingToStart("No Python.", ["a: no"]));
  const { sidecar } = supervised(() => plan());
  await sidecar.start();
  expect(sidecar.connection).toMatchObject({ kind: "failed", title: "No Python.", detail: "These were tried:\na: no" });
  plan = async () => ({ ...realLaunch(), command: "/nowhere/python" });
  await sidecar.start();
  expect(sidecar.instance).toBe(0);
});

test("lines of the sidecar have their level, and others are shown as they are", () => {
  expect(logLine('{"level":"ERROR","message":"m","time":"t","conversationId":"c"}')).toEqual({
    level: "error",
    message: 'm {"conversationId":"c"}',
  });
  expect(logLine('{"level":"INFO","message":"m","stack":"s"}').message).toBe("m\ns");
  expect(logLine("Traceback")).toEqual({ level: "warning", message: "Traceback" });
  expect(logLine("7")).toEqual({ level: "warning", message: "7" });
});
