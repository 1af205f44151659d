// A memory of refusals: because `retryAfter` is exact, the same call need not be sent again before.

import { idOf, remember } from "./call.js";

/**
 * @typedef {import("./answer.js").Answer} Answer
 * @typedef {import("./call.js").Group} Group
 * @typedef {{ until: number, answered: number, group: Group, tiers: boolean, answer: Answer }} Found
 */

/** The last refusal of each of at most `size` keys, for at most `longest` milliseconds. 0 remembers nothing. */
export class Refusals {
  /** @type {Map<string, Found>} */
  #found = new Map();
  #longest;
  #size;

  /**
   * @param {number} longest
   * @param {number} size
   */
  constructor(longest, size) {
    this.#longest = longest;
    this.#size = size;
  }

  /**
   * Times are those of the monotonic clock: before the call was sent, and after.
   * @param {Group} group
   * @param {boolean} tiers
   * @param {Answer} answer
   * @param {number} asked
   * @param {number} answered
   */
  remember(group, tiers, answer, asked, answered) {
    const after = Math.min(this.#longest, answer.retryAfter ?? Infinity);
    if (after <= 0) return;
    remember(this.#found, group.key, { until: asked + after, answered, group, tiers, answer }, this.#size);
  }

  /**
   * The refusal that this call would get as well.
   * @param {Group} group
   * @param {boolean} tiers
   * @param {number} now
   * @returns {Answer | undefined}
   */
  recall(group, tiers, now) {
    if (this.#found.size === 0) return undefined;
    const id = idOf(group.key);
    const found = this.#found.get(id);
    if (found === undefined) return undefined;
    if (now >= found.until) {
      this.#found.delete(id);
      return undefined;
    }
    const { limits } = found.group;
    const isSame =
      found.tiers === tiers &&
      found.group.cost === group.cost &&
      limits.length === group.limits.length &&
      limits.every(({ units, window }, at) => group.limits[at]?.units === units && group.limits[at]?.window === window);
    return isSame ? found.answer.later(Math.max(0, now - found.answered)) : undefined;
  }

  /** @param {import("./call.js").Key} key */
  forget(key) {
    this.#found.delete(idOf(key));
  }
}
