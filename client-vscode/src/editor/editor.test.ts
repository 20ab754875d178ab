import { expect, test } from "vitest";

import { difference, endedAs } from "./difference";
import { best } from "./finding";

const PIECES = ["", "a", "b", "\n", "\r\n", "ab", "ba", "\r\na", "😀"];

test("the stretch that differs, put in place, makes the one text the other", () => {
  const texts = PIECES.flatMap((one) => PIECES.flatMap((two) => PIECES.map((three) => one + two + three)));
  const some = [...new Set(texts)].filter((_, index) => index % 7 === 0);
  for (const before of some) {
    for (const after of some) {
      const { start, end, inserted } = difference(before, after);
      expect(before.slice(0, start) + inserted + before.slice(end)).toBe(after);
      // Never within a line end: the editor has no place there.
      for (const at of [start, end]) expect(before.slice(at - 1, at + 1)).not.toBe("\r\n");
    }
  }
});

test("it is as small as it can be", () => {
  expect(difference("one two three", "one 2 three")).toEqual({ start: 4, end: 7, inserted: "2" });
  expect(difference("same", "same")).toEqual({ start: 4, end: 4, inserted: "" });
});

test("the last line ends as it did before", () => {
  expect(endedAs("a\n", "b")).toBe("b\n");
  expect(endedAs("a\r\n", "b\r\n")).toBe("b\r\n");
  expect(endedAs("a", "b")).toBe("b");
  expect(endedAs("", "b")).toBe("b");
});

test("a file is found by its name first, then by its path, then by its letters", () => {
  const files = ["src/main.ts", "docs/domain.md", "src/main/index.ts", "my/a/i/n.txt", "README.md"].map((path) => ({ path, uri: path }));
  expect(best(files, "main").map(({ path }) => path)).toEqual(["src/main.ts", "docs/domain.md", "src/main/index.ts", "my/a/i/n.txt"]);
  expect(best(files, "zzz")).toEqual([]);
  expect(best(files, "")).toHaveLength(5);
  expect(best(Array.from({ length: 50 }, (_, index) => ({ path: `a${index}`, uri: "" })), "a")).toHaveLength(20);
});
