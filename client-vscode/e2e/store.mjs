/** The conversations that a server's windows share, by the sidecar's own command line. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";

import { pythonWithModels } from "./tools.mjs";
import { eventually } from "./waiting.mjs";

/**
 * @typedef {import("./server.mjs").Server} Server
 * @typedef {{ conversationId: string, title: string | null, mode: string, messageCount: number }} Conversation
 * @typedef {{ kind: string, text?: string }} Part
 * @typedef {{ role: string, status: string, parts: Part[] }} Message
 */

/**
 * @param {Server} server
 * @param {string[]} args
 */
function sidecar(server, ...args) {
  const python = pythonWithModels();
  if (!python) throw new Error("There is no Python with the sidecar.");
  return execFileSync(python, ["-I", "-m", "sidecar", ...args], {
    cwd: server.workspace,
    encoding: "utf8",
    env: { PATH: process.env.PATH, HOME: server.home, XDG_DATA_HOME: server.data },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** @param {Server} server @returns {Conversation[]} */
export function conversations(server) {
  return JSON.parse(sidecar(server, "conversations", "list", "--json"));
}

/** @param {Server} server @param {string} title */
export function conversation(server, title) {
  return conversations(server).find((one) => one.title?.includes(title));
}

/** @param {Server} server @param {string} conversationId @returns {Message[]} */
export function messages(server, conversationId) {
  return JSON.parse(sidecar(server, "conversations", "show", "--json", conversationId)).messages;
}

/** @param {Message} message */
export function textOf(message) {
  return message.parts.map(({ kind, text }) => (kind === "text" ? text : "")).join("");
}

/**
 * Until the store has this text as the last of a conversation.
 * @param {Server} server
 * @param {string} title
 * @param {string} text
 */
export async function isStored(server, title, text) {
  await eventually(() => {
    const found = conversation(server, title);
    const last = found && messages(server, found.conversationId).at(-1);
    return last && textOf(last) === text;
  }, `"${title}" ends with what was streamed`);
}

/**
 * A conversation of so many messages, brought in as an export is.
 * @param {Server} server
 * @param {string} title
 * @param {number} count
 */
export function importLong(server, title, count) {
  sidecar(server, "run", "--provider", "offline", title);
  const { conversationId } = conversation(server, title) ?? {};
  if (!conversationId) throw new Error("The conversation to be copied is not there.");
  const sample = JSON.parse(sidecar(server, "conversations", "export", "--format", "json", conversationId));
  const { messages: pair } = sample;
  const copies = Array.from({ length: count }, (_, number) => ({
    ...pair[number % 2],
    messageId: `imported-${number}`,
    turnId: `turn-${number >> 1}`,
    ordinal: number,
    parts: [{ kind: "text", text: paragraph(number) }],
  }));
  const file = path.join(server.base, "long.json");
  const head = { ...sample.conversation, title: `${title}, imported`, messageCount: count };
  writeFileSync(file, JSON.stringify({ ...sample, conversation: head, messages: copies }));
  sidecar(server, "conversations", "import", file);
  sidecar(server, "conversations", "delete", "--yes", conversationId);
}

/** @param {number} number */
function paragraph(number) {
  const code = "\n\n```python\ndef answer():\n    return 42\n```\n";
  return `Message number ${number}. ${"It says something of the usual length. ".repeat(6)}${number % 5 ? "" : code}`;
}
