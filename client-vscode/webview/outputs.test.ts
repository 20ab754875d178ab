import { expect, test } from "vitest";

import { Outputs, tail } from "./outputs";

test("only the last lines are kept, however it comes", () => {
  const outputs = new Outputs();
  for (let line = 1; line <= 10_000; line += 1) outputs.add("c", `line ${line}\n`);
  const lines = outputs.of("c")?.trimEnd().split("\n");
  expect(lines).toHaveLength(12);
  expect([lines?.[0], lines?.at(-1)]).toEqual(["line 9989", "line 10000"]);
  outputs.add("c", "x".repeat(1_000_000));
  expect(outputs.of("c")?.length).toBeLessThanOrEqual(4_000);
});

test("a line that comes in pieces stays one, and what is drawn over is gone", () => {
  const outputs = new Outputs();
  for (const piece of ["1", "0%", "\r20%", "\r", "30%"]) outputs.add("c", piece);
  expect(outputs.of("c")).toBe("30%");
  expect(tail("a\r\nb\r\n")).toBe("a\nb\n");
});

test("each tool has its own, until it ends", () => {
  const outputs = new Outputs();
  outputs.add("a", "1");
  outputs.add("b", "2");
  outputs.end("a");
  expect([outputs.of("a"), outputs.of("b")]).toEqual([undefined, "2"]);
  outputs.clear();
  expect(outputs.of("b")).toBeUndefined();
});
