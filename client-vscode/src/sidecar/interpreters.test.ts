import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";

import { expanded, ofEnvironment, onPath, search, type Candidate } from "./interpreters";

const candidate = (command: string): Candidate => ({ source: "a test", command, args: [] });
const version = (major: number, minor: number) => JSON.stringify([[major, minor], `/real/python${minor}`]);

test("the first that is new enough is taken, by the name that it gives itself", async () => {
  const answers: Record<string, string> = { old: version(3, 10), two: version(2, 7), good: version(3, 13), later: version(3, 14) };
  const asked: string[] = [];
  const found = await search(["old", "two", "good", "later"].map(candidate), async (command, args) => {
    asked.push(command);
    expect(args.slice(0, 2)).toEqual(["-I", "-c"]);
    return answers[command] ?? "";
  });
  expect(found.found).toEqual({ source: "a test", command: "/real/python13", args: [], version: "3.13" });
  expect(asked).toEqual(["old", "two", "good"]);
  expect(found.refused).toEqual([
    "old (a test): it is Python 3.10; 3.11 or newer is needed",
    "two (a test): it is Python 2.7; 3.11 or newer is needed",
  ]);
});

test("why each was not taken is said in words", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "interpreters-"));
  const script = (name: string, text: string, mode = 0o755) => {
    const file = path.join(folder, name);
    writeFileSync(file, `#!/bin/sh\n${text}\n`);
    chmodSync(file, mode);
    return candidate(file);
  };
  const candidates = [
    candidate(path.join(folder, "none")),
    script("broken", "echo 'ModuleNotFoundError: no encodings' >&2; exit 1"),
    script("other", "echo hello"),
    script("closed", "exit 0", 0o644),
  ];
  const { found, refused } = await search(candidates);
  expect(found).toBeNull();
  expect(refused.map((line) => line.slice(line.indexOf("): ") + 3))).toEqual([
    "there is no such program",
    "ModuleNotFoundError: no encodings",
    "it does not answer as Python does",
    "it may not be run",
  ]);
});

test("each platform has its names and its environments", () => {
  expect(onPath("win32").map(({ command, args }) => [command, ...args].join(" "))).toEqual(["py -3", "python", "python3"]);
  expect(onPath("linux").map(({ command }) => command)).toEqual(["python3", "python"]);
  expect(ofEnvironment("C:\\x", "win32")).toBe("C:\\x\\Scripts\\python.exe");
  expect(ofEnvironment("/x", "darwin")).toBe("/x/bin/python");
});

test("a setting may be relative to the workspace and to the home folder", () => {
  expect(expanded("${workspaceFolder}/.venv/bin/python", "/w", "/home/me")).toBe("/w/.venv/bin/python");
  expect(expanded("~/py", "/w", "/home/me")).toBe("/home/me/py");
  expect(expanded("${userHome}/py", undefined, "/home/me")).toBe("/home/me/py");
  expect(expanded("a~b", undefined, "/home/me")).toBe("a~b");
});
