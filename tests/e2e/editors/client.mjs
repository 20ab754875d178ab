// vscode-jsonrpc, the library under VS Code's language clients, as a client of the sidecar.
// Prints one JSON object and quits.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";

const require = createRequire(process.env.SIDECAR_NODE_MODULES + "/");
const rpc = require("vscode-jsonrpc/node");

const [command, ...args] = process.env.SIDECAR_COMMAND.split("\t");
const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
const connection = rpc.createMessageConnection(
  new rpc.StreamMessageReader(child.stdout),
  new rpc.StreamMessageWriter(child.stdin),
);
const seen = { events: [], text: "" };
connection.onNotification("conversation/event", (event) => {
  seen.events.push(event.type);
  if (event.type === "delta") seen.text += event.text;
});
const ready = new Promise((resolve) => connection.onNotification("sidecar/ready", resolve));
connection.listen();

const initialized = await connection.sendRequest("initialize", {
  processId: process.pid,
  capabilities: {},
  initializationOptions: { protocolVersions: [1] },
});
seen.protocolVersion = initialized.capabilities.experimental.sidecar.protocolVersion;
await connection.sendNotification("initialized", {});
seen.storeId = (await ready).storeId;
const { conversationId } = await connection.sendRequest("conversation/create", { mode: "chat" });
seen.result = await connection.sendRequest("message/send", { conversationId, input: "help" });

seen.unknown = await connection
  .sendRequest("conversation/get", { conversationId: "nobody" })
  .catch((error) => error.data.type);


await connection.sendRequest("shutdown");
await connection.sendNotification("exit");
[seen.exitCode] = await once(child, "exit");
console.log(JSON.stringify(seen));
