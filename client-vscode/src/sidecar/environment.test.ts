import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";

import { isMissing, python } from "../testing";
import { makeEnvironment } from "./environment";

const ROOT = path.resolve(import.meta.dirname, "..", "..");

describe.skipIf(isMissing)("an environment of our own", () => {
  const making = (requirements: string[], signal = new AbortController().signal) => {
    const folder = path.join(mkdtempSync(path.join(tmpdir(), "environment-")), "venv");
    const lines: string[] = [];
    return { python, folder, requirements, env: process.env, signal, onLine: (line: string) => lines.push(line), lines };
  };

  test("is made, and has what was asked for", async () => {
    const given = making(["pip"]);
    const own = await makeEnvironment(given);
    expect(existsSync(own)).toBe(true);
    expect(given.lines.join("\n")).toContain("pip");
  });

  test("that cannot be made says why", async () => {
    await expect(makeEnvironment(making(["--no-index", "no-such-package-of-ours"]))).rejects.toThrow(/No matching distribution/);
    await expect(makeEnvironment({ ...making([]), python: "/nowhere/python" })).rejects.toThrow("ENOENT");
  });

  test("can be given up", async () => {
    const stop = new AbortController();
    const made = makeEnvironment(making(["pip"], stop.signal));
    stop.abort();
    await expect(made).rejects.toThrow(/abort/);
  });
});

test("what is installed is what the sidecar's own extra asks for", () => {
  const lines = readFileSync(path.join(ROOT, "bundle", "models.txt"), "utf8").split("\n");
  const [wanted] = lines.filter((line) => line && !line.startsWith("#"));
  expect(readFileSync(path.resolve(ROOT, "..", "pyproject.toml"), "utf8")).toContain(`llm = ["${wanted}"]`);
});
