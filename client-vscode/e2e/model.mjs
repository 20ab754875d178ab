/**
 * A model server that speaks OpenAI's wire and says what a test has written down. A test holds an
 * answer at a gate for as long as it likes, and knows when the answer has come to the gate.
 */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { inTime } from "./waiting.mjs";

/** A place in an answer where the model waits. */
export class Gate {
  /** @type {() => void} */
  #arrive = () => {};
  /** @type {() => void} */
  #release = () => {};
  #reached = new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#arrive = resolve));
  #opened = new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#release = resolve));

  /** What comes before the gate was sent. */
  reached() {
    return inTime(this.#reached, "the model comes to a gate");
  }

  open() {
    this.#release();
  }

  wait() {
    this.#arrive();
    return this.#opened;
  }
}

/**
 * A piece of text is one delta.
 * @typedef {string | Gate | { tool: string, arguments: object }} Step
 * @typedef {{ role: string, content: string | { type: string, text?: string }[] | null }} WireMessage
 * @typedef {{ model: string, messages: WireMessage[], key: string }} Asked
 */

/** Words that tell each other apart: a text in which every gap and every repeat shows. */
export function words(/** @type {number} */ from, /** @type {number} */ to) {
  return Array.from({ length: to - from }, (_, index) => `w${from + index} `);
}

export class Model {
  /** @type {Asked[]} */
  requests = [];
  url = "";
  /** @type {Map<string, Step[]>} */
  #scripts = new Map();
  /** @type {{ fits: (messages: WireMessage[]) => boolean, steps: Step[] }[]} */
  #rules = [];
  #server = createServer((request, response) => {
    this.#serve(request, response).catch((error) => response.destroy(error));
  });

  static async start() {
    const model = new Model();
    await new Promise((resolve) => model.#server.listen(0, "127.0.0.1", () => resolve(undefined)));
    const address = model.#server.address();
    if (!address || typeof address === "string") throw new Error("The model has no port.");
    model.url = `http://127.0.0.1:${address.port}/v1`;
    return model;
  }

  /** The settings by which a sidecar asks this model. */
  get settings() {
    return {
      "agentSidecar.provider": "openai",
      "agentSidecar.openaiBaseUrl": this.url,
      "agentSidecar.openaiModel": "e2e-model",
    };
  }

  /**
   * Answer the prompt with these steps; any other prompt gets an echo.
   * @param {string} prompt
   * @param {Step[]} steps
   * @returns {string} the whole text
   */
  answers(prompt, steps) {
    this.#scripts.set(prompt, steps);
    return steps.filter((step) => typeof step === "string").join("");
  }

  /**
   * Answer whatever fits with these steps; the rule that was made last counts.
   * @param {(messages: WireMessage[]) => boolean} fits
   * @param {Step[]} steps
   */
  answersWhere(fits, steps) {
    this.#rules.unshift({ fits, steps });
  }

  /** How often a prompt came. */
  timesAsked(/** @type {string} */ prompt) {
    return this.requests.filter(({ messages }) => lastPrompt(messages) === prompt).length;
  }

  /** Nothing is held any longer. */
  openAll() {
    const steps = [...this.#scripts.values(), ...this.#rules.map((rule) => rule.steps)].flat();
    for (const step of steps) if (step instanceof Gate) step.open();
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /**
   * @param {import("node:http").IncomingMessage} request
   * @param {import("node:http").ServerResponse} response
   */
  async #serve(request, response) {
    const body = await bodyOf(request);
    if (request.url !== "/v1/chat/completions") {
      response.writeHead(404).end();
      return;
    }
    const { model, messages } = JSON.parse(body);
    const key = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    this.requests.push({ model, messages, key });
    const prompt = lastPrompt(messages);
    const rule = this.#rules.find(({ fits }) => fits(messages));
    const steps = rule?.steps ?? this.#scripts.get(prompt) ?? [`You said: ${prompt}`];
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const step of steps) {
      if (step instanceof Gate) await step.wait();
      else response.write(event({ choices: [{ index: 0, delta: deltaOf(step), finish_reason: null }] }));
    }
    const usesTool = steps.some((step) => typeof step === "object" && "tool" in step);
    response.write(event({ choices: [{ index: 0, delta: {}, finish_reason: usesTool ? "tool_calls" : "stop" }] }));
    response.write(event({ choices: [], usage: usage(body.length, steps.join("").length) }));
    response.end("data: [DONE]\n\n");
  }
}

/** @param {Exclude<Step, Gate>} step */
function deltaOf(step) {
  if (typeof step === "string") return { content: step };
  const call = { name: step.tool, arguments: JSON.stringify(step.arguments) };
  return { tool_calls: [{ index: 0, id: `call_${randomUUID()}`, type: "function", function: call }] };
}

/** @param {WireMessage[]} messages */
export function lastPrompt(messages) {
  const content = messages.findLast(({ role }) => role === "user")?.content ?? "";
  if (typeof content === "string") return content;
  return content.map(({ text }) => text ?? "").join("");
}

/**
 * As a model would count them, roughly.
 * @param {number} asked
 * @param {number} said
 */
function usage(asked, said) {
  const [prompt_tokens, completion_tokens] = [Math.ceil(asked / 4), Math.ceil(said / 4)];
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}

/** @param {object} value */
function event(value) {
  const head = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1_760_000_000, model: "e2e-model" };
  return `data: ${JSON.stringify({ ...head, ...value })}\n\n`;
}

/** @param {import("node:http").IncomingMessage} request */
async function bodyOf(request) {
  /** @type {Buffer[]} */
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString("utf8");
}
