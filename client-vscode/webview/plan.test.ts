import { expect, test } from "vitest";

import { planOf } from "./plan";

test("a plan is a summary, steps and a command", () => {
  const text = "Two files.\n\nBecause of it.\n\n1. Write a\n2. Write b\n   with care\n\nVerify with: make test";
  expect(planOf(text)).toEqual({
    summary: "Two files.\n\nBecause of it.",
    steps: ["Write a", "Write b\n   with care"],
    verify: "make test",
  });
  expect(planOf("1. Only this")).toEqual({ summary: "", steps: ["Only this"], verify: null });
});

test("what is no plan is none", () => {
  expect(planOf("Do something")).toBeNull();
  expect(planOf("")).toBeNull();
  expect(planOf("2. Second without a first")).toBeNull();
});

test("ten and more are counted on", () => {
  const text = Array.from({ length: 12 }, (_, index) => `${index + 1}. Step`).join("\n");
  expect(planOf(text)?.steps).toHaveLength(12);
});

test("nothing of the text is left out", () => {
  for (const text of ["S\n\n1. a\n5. b\nVerify with: x\nand\n2. c", "Verify with: y\n1. a\n2. b"]) {
    const { summary, steps, verify } = planOf(text) ?? { summary: "", steps: [], verify: null };
    const shown = [summary, ...steps, verify ?? ""].join("\n");
    const words = text.replaceAll("Verify with: ", "").match(/\w+/g) ?? [];
    for (const word of words.filter((one) => !/^[12]$/.test(one))) expect(shown).toContain(word);
  }
});
