import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Deletions, UNDO_MILLISECONDS } from "./deletions";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("it can be undone for a while, and is deleted after that", async () => {
  const deleted: string[] = [];
  const deletions = new Deletions(async (id) => void deleted.push(id), () => undefined);
  deletions.begin("a");
  deletions.begin("b");
  expect(deletions.undo("a")).toBe(true);
  await vi.advanceTimersByTimeAsync(UNDO_MILLISECONDS - 1);
  expect([deleted, deletions.ids]).toEqual([[], ["b"]]);
  await vi.advanceTimersByTimeAsync(1);
  expect([deleted, deletions.ids]).toEqual([["b"], []]);
  expect(deletions.undo("b")).toBe(false);
});

test("a window that closes deletes nothing that could still be undone", async () => {
  const deletions = new Deletions(() => Promise.reject(new Error("deleted")), () => undefined);
  deletions.begin("a");
  deletions.dispose();
  await vi.advanceTimersByTimeAsync(UNDO_MILLISECONDS * 2);
  expect(deletions.ids).toEqual([]);
});

test("what could not be deleted is there again, and said", async () => {
  const failures: string[] = [];
  const deletions = new Deletions(
    () => Promise.reject(new Error("busy")),
    () => undefined,
    (error) => failures.push(error.message),
  );
  deletions.begin("a");
  await vi.advanceTimersByTimeAsync(UNDO_MILLISECONDS);
  expect([deletions.ids, failures]).toEqual([[], ["busy"]]);
});
