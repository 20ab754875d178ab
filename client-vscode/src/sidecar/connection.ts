/** One process of the sidecar and what is said with it, typed by the protocol. */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { createInterface } from "node:readline";
import {
  CancellationToken,
  createMessageConnection,
  ErrorCodes,
  ResponseError,
  StreamMessageReader,
  StreamMessageWriter,
  type MessageConnection,
} from "vscode-jsonrpc/node";

import type {
  ClientNotifications,
  Methods,
  ServerNotifications,
  ServerRequests,
} from "../protocol";
import type { Launch } from "./launch";

export type Level = "debug" | "info" | "warning" | "error";
export interface LogLine {
  level: Level;
  message: string;
}
/** How the process came to its end. */
export interface End {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** It could not be started at all. */
  error?: Error;
  /** The last lines that it logged. */
  tail: string[];
}

const TAIL_LINES = 40;
/** What requests fail with that were not answered. */
const BROKEN_OFF = new Set<number>([
  ErrorCodes.PendingResponseRejected,
  ErrorCodes.ConnectionInactive,
  ErrorCodes.MessageWriteError,
  ErrorCodes.MessageReadError,
]);

export class SidecarConnection {
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly rpc: MessageConnection;
  private readonly tail: string[] = [];
  readonly ended: Promise<End>;

  constructor(launch: Launch, onLog: (line: LogLine) => void) {
    this.child = spawn(launch.command, launch.args, {
      cwd: launch.cwd,
      env: launch.env,
      windowsHide: true,
    });
    this.rpc = createMessageConnection(
      new StreamMessageReader(this.child.stdout),
      new StreamMessageWriter(this.child.stdin),
    );
    this.ended = new Promise((resolve) => {
      const end = (how: Omit<End, "tail">) => {
        this.rpc.dispose();
        resolve({ ...how, tail: this.tail });
      };
      this.child.once("error", (error) => end({ code: null, signal: null, error }));
      // Not `exit`: what it logged last may still be on its way.
      this.child.once("close", (code, signal) => end({ code, signal }));
    });
    this.rpc.onError(([error]) => onLog({ level: "warning", message: `connection: ${error.message}` }));
    // A process that has just ended cannot be written to; `ended` tells how it ended.
    this.child.stdin.on("error", (error) => onLog({ level: "debug", message: `stdin: ${error.message}` }));
    createInterface({ input: this.child.stderr }).on("line", (line) => {
      if (this.tail.push(line) > TAIL_LINES) this.tail.shift();
      onLog(logLine(line));
    });
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  /** Begin to read. What is heard before a handler is there would be lost. */
  listen(): void {
    this.rpc.listen();
  }

  request<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    token: CancellationToken = CancellationToken.None,
  ): Promise<Methods[M]["result"]> {
    return this.rpc.sendRequest(method, params, token);
  }

  /** Requests of the framing's own life cycle. */
  async lifecycle(method: "initialize" | "shutdown", params: object): Promise<unknown> {
    return this.rpc.sendRequest(method, params);
  }

  async notify<M extends keyof ClientNotifications>(
    method: M | "initialized" | "exit",
    params: M extends keyof ClientNotifications ? ClientNotifications[M] : object,
  ): Promise<void> {
    await this.rpc.sendNotification(method, params);
  }

  on<M extends keyof ServerNotifications>(
    method: M,
    handler: (params: ServerNotifications[M]) => void,
  ): void {
    this.rpc.onNotification(method, handler);
  }

  onMessage(handler: (type: number, message: string) => void): void {
    this.rpc.onNotification("window/showMessage", (params: { type: number; message: string }) =>
      handler(params.type, params.message),
    );
  }

  answer<M extends keyof ServerRequests>(
    method: M,
    handler: (params: ServerRequests[M]["params"]) => Promise<ServerRequests[M]["result"]>,
  ): void {
    this.rpc.onRequest(method, async (params: ServerRequests[M]["params"]) => {
      try {
        return await handler(params);
      } catch (error) {
        return new ResponseError(-32603, error instanceof Error ? error.message : String(error));
      }
    });
  }

  /**
   * Raises the answer that was an error. If there was none the connection has broken off: then it
   * returns when the process has ended, and all who wait for that know.
   */
  async reasonOf(error: unknown): Promise<void> {
    if (error instanceof ResponseError && !BROKEN_OFF.has(error.code)) throw error;
    this.kill();
    await this.ended;
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  /** Nobody will ask any more: the process finishes what runs and ends by itself. */
  async leave(): Promise<void> {
    await this.lifecycle("shutdown", {});
    await this.notify("exit", {});
    this.child.stdin.end();
  }
}

/** The sidecar logs an object a line; what else comes is an interpreter's own complaint. */
export function logLine(line: string): LogLine {
  try {
    const said = JSON.parse(line) as { level?: string; message?: string; stack?: string };
    if (typeof said.message === "string") {
      const { level, message, stack, ...rest } = said as Record<string, unknown>;
      delete rest["time"];
      delete rest["at"];
      const more = Object.keys(rest).length ? ` ${JSON.stringify(rest)}` : "";
      const trace = typeof stack === "string" ? `\n${stack}` : "";
      return { level: levelOf(level), message: `${String(message)}${more}${trace}` };
    }
  } catch {
    // Not one of its lines: a traceback at start, or a warning of the interpreter.
  }
  return { level: "warning", message: line };
}

function levelOf(level: unknown): Level {
  const name = String(level).toLowerCase();
  if (name === "critical") return "error";
  return name === "debug" || name === "warning" || name === "error" ? name : "info";
}
