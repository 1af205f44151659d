// How limits are spelled, and what is no limit.

import assert from "node:assert/strict";
import test from "node:test";

import { parseLimits } from "redis-ratelimit";

test("limits", () => {
  for (const [text, units, window] of [
    ["10/second", 10, 1_000],
    ["100 per minute", 100, 60_000],
    ["5/30s", 5, 30_000],
    ["20 / 1.5h", 20, 5_400_000],
    ["3/0.3 seconds", 3, 300],
    ["0/ms", 0, 1],
    ["7/2weeks", 7, 1_209_600_000],
    ["9007199254740991/3650d", Number.MAX_SAFE_INTEGER, 3650 * 86_400_000],
  ]) {
    assert.deepEqual(parseLimits(text), [{ units, window }], text);
  }
  assert.deepEqual(parseLimits("10/s; 500/hour"), [{ units: 10, window: 1_000 }, { units: 500, window: 3_600_000 }]);
  assert.deepEqual(parseLimits(["1/s;2/m", { units: 3, window: 5 }]).map(({ units }) => units), [1, 2, 3]);
});

test("what is no limit", () => {
  for (const text of ["", "10", "10/", "-1/s", "1.5/s", "10/fortnight", "1/0s", "1/0.0001s", "1/3651d", "9007199254740992/s", "1/s;", "1/s\n2/s"]) {
    assert.throws(() => parseLimits(text), RangeError, text);
  }
  for (const window of [0, 1.5, -1, NaN, Infinity, "1s", 3651 * 86_400_000]) {
    assert.throws(() => parseLimits({ units: 1, window }), RangeError, `${window}`);
  }
  for (const units of ["1", 1.5, NaN, null, 1n]) assert.throws(() => parseLimits({ units, window: 1 }), TypeError);
  for (const units of [-1, 2 ** 53, Infinity]) assert.throws(() => parseLimits({ units, window: 1 }), RangeError);
  for (const limits of [null, undefined, 5, [5], [null]]) assert.throws(() => parseLimits(limits), TypeError);
  assert.throws(() => parseLimits([]), RangeError);
  assert.throws(() => parseLimits(Array(9).fill("1/s")), RangeError);
});
