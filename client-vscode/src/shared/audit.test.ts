import { expect, test } from "vitest";

import { lineOf } from "./audit";

test("an entry of the audit is one line", () => {
  expect(lineOf({ action: "tool", tool: "run", allowed: false, why: "denied", at: 0, conversationId: "c" })).toBe(
    "1970-01-01 00:00:00  denied   tool run                 denied       c",
  );
  expect(lineOf({ action: "message", allowed: true, why: "sent", conversationId: "a", otherId: "b" })).toMatch(/a → b$/);
});
