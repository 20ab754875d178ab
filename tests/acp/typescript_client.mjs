// The protocol's own TypeScript client talks with the agent; prints what it saw as JSON.
//   node typescript_client.mjs SDK WORKSPACE COMMAND …
import { spawn } from "node:child_process";
import { readFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const [sdk, workspace, program, ...args] = process.argv.slice(2);
const acp = await import(pathToFileURL(join(sdk, "dist/v1/stable/acp.js")).href);
const child = spawn(program, args, { cwd: workspace, stdio: ["pipe", "pipe", "inherit"] });
const stream = acp.ndJsonStream(Writable.toWeb(child.stdin), Readable.toWeb(child.stdout));

const texts = {};
const kinds = {};
let heard = () => {};
let answer = "allow";
const app = acp
  .client({ name: "test" })
  .onNotification(acp.methods.client.session.update, ({ params: { sessionId, update } }) => {
    (kinds[sessionId] ??= []).push(update.sessionUpdate);
    if (update.sessionUpdate === "agent_message_chunk")
      texts[sessionId] = (texts[sessionId] ?? "") + update.content.text;
    heard();
  })
  .onRequest(acp.methods.client.session.requestPermission, ({ params: { options } }) => ({
    outcome: { outcome: "selected", optionId: options.find((o) => o.optionId === answer).optionId },
  }));

const until = async (isSo) => {
  while (!isSo()) await new Promise((resolve) => (heard = resolve));
};
const code = async (promise) => {
  try {
    await promise;
    return "no error";
  } catch (error) {
    return error.code;
  }
};

const result = await app.connectWith(stream, async (ctx) => {
  const session = acp.methods.agent.session;
  const say = async (sessionId, text) =>
    (await ctx.request(session.prompt, { sessionId, prompt: [{ type: "text", text }] })).stopReason;
  const opened = { cwd: workspace, mcpServers: [] };
  const seen = {};
  const initialized = await ctx.request(acp.methods.agent.initialize, {
    protocolVersion: acp.PROTOCOL_VERSION,
    clientCapabilities: {},
  });
  seen.version = initialized.protocolVersion;

  const ids = [];
  for (let n = 0; n < 3; n++) ids.push((await ctx.request(session.new, opened)).sessionId);
  seen.parallel = await Promise.all(ids.map((id, n) => say(id, `repeat 20 ${n}`)));
  seen.texts = ids.map((id) => texts[id]);

  const [id, other] = ids;
  await ctx.request(session.setMode, { sessionId: id, modeId: "build" });
  await say(id, 'tool create {"path": "ts.txt", "text": "hi"}');
  answer = "reject";
  await say(id, 'tool create {"path": "not.txt", "text": "hi"}');
  seen.files = ["ts.txt", "not.txt"].map((name) => existsSync(join(workspace, name)));
  seen.content = readFileSync(join(workspace, "ts.txt"), "utf8");

  await ctx.notify(session.cancel, { sessionId: other });
  const endless = say(other, "repeat 90000 more");
  const queued = say(other, "echo never");
  await until(() => texts[other].includes("more"));
  await ctx.notify(session.cancel, { sessionId: other });
  seen.cancelled = [await endless, await queued, await say(other, "echo after")];

  const before = texts[id];
  seen.listed = (await ctx.request(session.list, { cwd: workspace })).sessions.length;
  await ctx.request(session.close, { sessionId: id });
  seen.closed = await code(say(id, "echo x"));
  texts[id] = "";
  await ctx.request(session.load, { sessionId: id, ...opened });
  seen.replayed = texts[id] === before;
  await ctx.request(session.delete, { sessionId: id });
  seen.left = (await ctx.request(session.list, {})).sessions.length;
  seen.unknown = await code(ctx.request(session.load, { sessionId: id, ...opened }));
  seen.wrong = await code(ctx.request(session.prompt, { sessionId: other, prompt: "text" }));
  seen.kinds = [...new Set(Object.values(kinds).flat())].sort();
  return seen;
});
console.log(JSON.stringify(result));
child.stdin.end();
await new Promise((resolve) => child.once("exit", resolve));
process.exit(0);
