/** The sidecar as the rest of the extension knows it: always there, or coming, or explained. */
import { CancellationToken } from "vscode-jsonrpc/node";

import type { InitializationOptions, Methods, ServerNotifications, ServerRequests } from "../protocol";
import type { Connection } from "../shared/messages";
import { SidecarConnection, type End, type LogLine } from "./connection";
import { NothingToStart, type Launch } from "./launch";
import { Restarts } from "./restarts";

export interface SidecarHost {
  plan(): Promise<Launch>;
  options(): Promise<InitializationOptions>;
  folders(): { uri: string; name: string }[];
  log(line: LogLine): void;
  /** Something that the sidecar wants the user to read; 1 is an error, 2 a warning, 3 a note. */
  say(type: number, message: string): void;
  /** `connection` or `instance` has changed. */
  changed(): void;
  heard<M extends keyof ServerNotifications>(method: M, params: ServerNotifications[M]): void;
  answers: {
    [M in keyof ServerRequests]?: (
      params: ServerRequests[M]["params"],
    ) => Promise<ServerRequests[M]["result"]>;
  };
}

const HEARD: (keyof ServerNotifications)[] = [
  "conversation/event",
  "conversation/resync",
  "conversations/changed",
  "agent/state",
  "tool/output",
];
const GOODBYE_MILLISECONDS = 4_000;
/** An interpreter that is read for the first time, by a virus scanner too, may take its time. */
const HELLO_MILLISECONDS = 60_000;

/** What a request fails with while there is no process to answer it. */
export class SidecarGone extends Error {}

export class Sidecar {
  connection: Connection = { kind: "starting", detail: "Looking for Python …" };
  /** Another number, another process. */
  instance = 0;
  storeId = "";
  degraded: string | null = null;

  private current: SidecarConnection | null = null;
  private readonly ready = new Gate();
  private isOver = false;
  private attempt: Promise<void> | null = null;
  /** Another number, and what an attempt was about to do counts for nothing. */
  private attempts = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly host: SidecarHost,
    private readonly restarts = new Restarts(),
    private readonly patience = HELLO_MILLISECONDS,
  ) {}

  /** Start it, or say why not. Never raises; one start at a time. */
  async start(): Promise<void> {
    if (this.current || this.isOver) return;
    await (this.attempt ??= this.tryToStart());
  }

  /** The user wants it started again, whatever it is at. */
  async restart(): Promise<void> {
    if (this.isOver) return;
    this.restarts.forgive();
    const running = this.abandon();
    this.become({ kind: "starting", detail: "Starting again …" });
    if (running && !(await goodbye(running))) running.kill();
    await this.start();
  }

  /** Ask, as soon as there is somebody to ask. Raises `SidecarGone`, or the sidecar's own error. */
  async request<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    token?: CancellationToken,
  ): Promise<Methods[M]["result"]> {
    await this.ready.opened;
    const asked = this.current;
    if (!asked) throw new SidecarGone("The sidecar is not running.");
    try {
      return await asked.request(method, params, token);
    } catch (error) {
      await asked.reasonOf(error);
      throw new SidecarGone("The sidecar ended before it answered.");
    }
  }

  /** Tell it, if it is there: it is told anew when it comes back. */
  notify(method: "webview/didDisconnect", params: { webviewId: string }): void;
  notify(method: "webview/didReconnect", params: { webviewId: string }): void;
  notify(method: "webview/didDisconnect" | "webview/didReconnect", params: { webviewId: string }): void {
    if (this.connection.kind !== "ready") return;
    this.current
      ?.notify(method, params)
      .catch((error: Error) => this.host.log({ level: "debug", message: `${method}: ${error.message}` }));
  }

  get pid(): number | undefined {
    return this.current?.pid;
  }

  /** The window closes. A turn that runs may finish in the process that is left. */
  async stop(): Promise<void> {
    this.isOver = true;
    const running = this.abandon();
    this.ready.open();
    if (running) await goodbye(running);
  }

  private async tryToStart(): Promise<void> {
    clearTimeout(this.timer);
    const attempt = (this.attempts += 1);
    const isLate = () => attempt !== this.attempts;
    try {
      this.become({ kind: "starting", detail: "Looking for Python …" });
      const launch = await this.host.plan();
      if (isLate()) return;
      this.host.log({ level: "info", message: `starting ${launch.title}` });
      this.become({ kind: "starting", detail: `Starting with ${launch.title} …` });
      await this.begin(launch);
    } catch (error) {
      if (!isLate()) this.fail(error);
    } finally {
      if (!isLate()) this.attempt = null;
    }
  }

  /** Have nothing more to do with what runs, or is being started; returns what there is. */
  private abandon(): SidecarConnection | null {
    clearTimeout(this.timer);
    this.attempts += 1;
    this.attempt = null;
    const running = this.current;
    this.current = null;
    return running;
  }

  private async begin(launch: Launch): Promise<void> {
    const connection = new SidecarConnection(launch, (line) => this.host.log(line));
    for (const method of HEARD) {
      connection.on(method, (params) => {
        // One that was left may still finish a turn; the new one tells what comes of it.
        if (this.current === connection) this.host.heard(method, params);
      });
    }
    connection.onMessage((type, message) => this.host.say(type, message));
    for (const [method, answer] of Object.entries(this.host.answers)) {
      connection.answer(method as keyof ServerRequests, answer as never);
    }
    const opened = new Promise<ServerNotifications["sidecar/ready"]>((resolve) =>
      connection.on("sidecar/ready", resolve),
    );
    connection.listen();
    this.current = connection;
    void connection.ended.then((end) => this.ended(connection, end));
    const lost = connection.ended.then((end) => Promise.reject(new Ended(end)));
    lost.catch(() => undefined); // `ended` above tells; here only the waiting is cut short
    const patience = setTimeout(() => {
      this.host.log({ level: "error", message: `no answer to initialize within ${this.patience / 1000} s` });
      connection.kill();
    }, this.patience);
    try {
      await Promise.race([this.introduce(connection).catch((error) => connection.reasonOf(error)), lost]);
    } finally {
      clearTimeout(patience);
    }
    const ready = await Promise.race([opened, lost]);
    if (this.current !== connection) return;
    this.instance += 1;
    this.storeId = ready.storeId;
    this.degraded = ready.degraded ?? null;
    this.become({ kind: "ready" });
    this.ready.open();
  }

  private async introduce(connection: SidecarConnection): Promise<void> {
    const abilities = Object.keys(this.host.answers).map((method) => [ABILITY[method], true]);
    await connection.lifecycle("initialize", {
      processId: process.pid,
      workspaceFolders: this.host.folders(),
      capabilities: { experimental: { sidecar: Object.fromEntries(abilities) } },
      initializationOptions: await this.host.options(),
    });
    await connection.notify("initialized", {});
  }

  private ended(connection: SidecarConnection, end: End): void {
    if (this.current !== connection) return; // it was told to
    this.current = null;
    this.ready.shut();
    const delay = this.restarts.next();
    this.host.log({ level: "error", message: `the sidecar ended (${how(end)})` });
    if (delay === null) {
      this.become({
        kind: "failed",
        title: "The sidecar keeps ending.",
        detail: [`It ended ${how(end)}. The last it said:`, ...end.tail].join("\n"),
        actions: ["restart", "showLog", "pickInterpreter"],
      });
      this.ready.open();
      return;
    }
    this.become({ kind: "starting", detail: `It ended ${how(end)} and is started again …` });
    this.timer = setTimeout(() => void this.start(), delay);
  }

  private fail(error: unknown): void {
    if (error instanceof Ended) return; // `ended` has decided how to go on
    const tried = error instanceof NothingToStart ? error.tried : [];
    const message = error instanceof Error ? error.message : String(error);
    this.host.log({ level: "error", message: [message, ...tried].join("\n") });
    this.become({
      kind: "failed",
      title: message,
      detail: tried.length ? ["These were tried:", ...tried].join("\n") : "The log may say more.",
      actions: ["pickInterpreter", "restart", "showLog"],
    });
    this.current?.kill();
    this.current = null;
    this.ready.open();
  }

  private become(connection: Connection): void {
    if (connection.kind === "starting" && this.connection.kind !== "starting") {
      this.ready.shut();
    }
    this.connection = connection;
    this.host.changed();
  }
}

const ABILITY: Record<string, string> = {
  "permission/request": "permissionRequest",
  "editor/readFile": "readFile",
  "editor/applyEdit": "applyEdit",
};

class Ended extends Error {
  constructor(end: End) {
    super(`the sidecar ended ${how(end)}`);
  }
}

function how(end: End): string {
  if (end.error) return `before it began: ${end.error.message}`;
  return end.signal ? `by ${end.signal}` : `with code ${end.code}`;
}

/** False: it did not answer, because it hangs or is gone already. Nobody waits longer for it. */
async function goodbye(connection: SidecarConnection): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, GOODBYE_MILLISECONDS, false);
  });
  const left = connection.leave().then(
    () => true,
    () => false,
  );
  const hasLeft = await Promise.race([left, patience]);
  clearTimeout(timer);
  return hasLeft;
}

/** What is waited for while it is shut. Shutting it again leaves nobody behind. */
class Gate {
  opened!: Promise<void>;
  private let: (() => void) | null = null;

  constructor() {
    this.shut();
  }

  shut(): void {
    if (this.let) return;
    this.opened = new Promise((resolve) => {
      this.let = resolve;
    });
  }

  open(): void {
    this.let?.();
    this.let = null;
  }
}
