import { expect, test } from "vitest";

import type { Event, Part } from "../protocol";
import { replyReader } from "./reply";

function reading() {
  const said: string[] = [];
  const stream = { markdown: (text: string) => said.push(text), progress: (text: string) => said.push(`[${text}]`) };
  const read = replyReader("mine", stream);
  return { said, hear: (...events: object[]) => events.forEach((event) => read(event as Event)) };
}

const begun = [
  { type: "turnQueued", messageId: "prompt", requestKey: "mine" },
  { type: "turnStarted", messageId: "prompt", turnId: "t" },
  { type: "messageStarted", messageId: "answer", turnId: "t", role: "assistant" },
];
const delta = (offset: number, text: string, part = 0) => ({ type: "delta", messageId: "answer", kind: "text", part, offset, text });
const completed = (...parts: Part[]) => ({ type: "messageCompleted", messageId: "answer", message: { parts } });

test("the answer is passed on as it comes, each stretch of it once", () => {
  const { said, hear } = reading();
  hear(...begun, delta(0, "one "), delta(0, "one t"), delta(5, "wo"), completed({ kind: "text", text: "one two" }));
  expect(said).toEqual(["one ", "t", "wo"]);
});

test("what was not streamed comes with the end", () => {
  const { said, hear } = reading();
  hear(...begun, delta(0, "one "), delta(8, "three"), completed({ kind: "text", text: "one two three" }));
  expect(said).toEqual(["one ", "two three"]);
});

test("answers to others, thinking and prompts are not passed on", () => {
  const { said, hear } = reading();
  hear(
    { type: "turnQueued", messageId: "theirs", requestKey: "other" },
    { type: "turnStarted", messageId: "theirs", turnId: "u" },
    { type: "messageStarted", messageId: "other", turnId: "u" },
    { type: "delta", messageId: "other", kind: "text", part: 0, offset: 0, text: "no" },
    ...begun,
    { ...delta(0, "hm"), kind: "thinking" },
  );
  expect(said).toEqual([]);
});

test("text on both sides of a tool are two paragraphs", () => {
  const { said, hear } = reading();
  hear(...begun, delta(0, "Let me look."), { type: "toolStarted", turnId: "t", name: "read" }, delta(0, "Found.", 3));
  expect(said).toEqual(["Let me look.", "[read …]", "\n\n", "Found."]);
});
