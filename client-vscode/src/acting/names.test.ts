import { expect, test } from "vitest";

import { idFor } from "./names";

test.each([
  ["Ada", [], "ada"],
  ["Ada", ["ada", "ada-2"], "ada-3"],
  ["Señor Löwe!", [], "senor-lowe"],
  ["李", [], "persona"],
  ["x".repeat(90), [], "x".repeat(40)],
])("%s", (name, taken, id) => {
  expect(idFor(name, taken)).toBe(id);
});
