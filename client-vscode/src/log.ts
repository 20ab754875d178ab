/** The output channel. It has levels, and so do the lines of the sidecar. */
import * as vscode from "vscode";

import type { LogLine } from "./sidecar/connection";

export class Log {
  readonly channel = vscode.window.createOutputChannel("Agent Sidecar", { log: true });

  readonly write = ({ level, message }: LogLine): void => {
    const write = { debug: "debug", info: "info", warning: "warn", error: "error" } as const;
    this.channel[write[level]](message);
  };
}
