import { expect, test } from "vitest";

import { Restarts } from "./restarts";

test("each start waits longer, and the sixth within three minutes is not made", () => {
  const restarts = new Restarts(() => 0);
  expect(Array.from({ length: 6 }, () => restarts.next())).toEqual([250, 500, 1000, 2000, 4000, null]);
});

test("what is long ago does not count, and the user can ask for another go", () => {
  let now = 0;
  const restarts = new Restarts(() => now);
  for (let count = 0; count < 5; count += 1) restarts.next();
  now = 3 * 60_000;
  expect(restarts.next()).toBe(250);
  for (let count = 0; count < 4; count += 1) restarts.next();
  expect(restarts.next()).toBeNull();
  restarts.forgive();
  expect(restarts.next()).toBe(250);
});
