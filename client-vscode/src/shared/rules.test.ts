import { expect, test } from "vitest";

import { command, conditions, explained } from "./rules";

const rule = (...argv: string[]) => ({ tool: "run", argv, root: "/w" });

test("a command is shown so that every word can be told from the next", () => {
  expect(command(["npm", "test"])).toBe("npm test");
  expect(command(["git", "commit", "-m", "two words"])).toBe("git commit -m 'two words'");
  expect(command(["echo", "it's", ""])).toBe(`echo 'it'\\''s' ''`);
  expect(command(["echo", "a\nb", "$HOME", "\u202e"])).toBe("echo 'a\nb' '$HOME' '\u202e'");
});

test("all of what would be allowed is said, and under which conditions", () => {
  expect(conditions(rule("make"))).toBe("");
  const said = explained([rule("make"), { ...rule("npm", "test"), network: true, isConfined: true }]);
  expect(said.split("\n").slice(1)).toEqual(["make", "npm test  (with a network, in the sandbox)", "in /w"]);
});
