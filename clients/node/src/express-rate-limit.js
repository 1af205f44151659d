// A store for the package express-rate-limit.

import { Limiter } from "./limiter.js";

/**
 * What express-rate-limit tells and asks.
 * @typedef {{ totalHits: number, resetTime: Date }} Info
 * @typedef {{ windowMs: number, limit?: unknown, max?: unknown, skipFailedRequests?: boolean }} Options
 */

/**
 * Counts exactly, in a sliding window: `rateLimit({ windowMs: 60_000, limit: 100, store: new RateLimitStore(limiter) })`.
 *
 * A refused request leaves no trace, so a client that keeps trying gets back in as soon as it may. `totalHits` is one above the
 * limit then. `resetTime` is when the oldest request leaves the window, or for a refusal when the next one would be admitted. `limit`
 * must be a number; for limits by request there is `redis-ratelimit/express`.
 */
export class RateLimitStore {
  /** Another process counts the same keys. */
  localKeys = false;
  prefix;
  #limiter;
  #limit = 0;
  #window = 0;
  #givesBackRefusals = false;
  /**
   * Refusals for which `decrement` is still to come, and since when.
   * @type {Map<string, number[]>}
   */
  #refused = new Map();

  /**
   * Two limits need prefixes of their own, or they count each other's requests.
   * @param {Limiter} limiter
   * @param {{ prefix?: string }} [options]
   */
  constructor(limiter, { prefix = "rl:" } = {}) {
    if (!(limiter instanceof Limiter)) throw new TypeError("the store needs a Limiter");
    this.#limiter = limiter;
    this.prefix = prefix;
  }

  /** @param {Options} options */
  init({ windowMs, limit, max, skipFailedRequests = false }) {
    const units = limit ?? max;
    if (typeof units !== "number") {
      throw new TypeError("RateLimitStore needs a limit that is a number; redis-ratelimit/express has limits by request");
    }
    this.#limit = units;
    this.#window = windowMs;
    // A refused request is a failed one.
    this.#givesBackRefusals = skipFailedRequests;
  }

  get #limits() {
    return { units: this.#limit, window: this.#window };
  }

  /**
   * @param {string} key
   * @returns {Promise<Info>}
   */
  async increment(key) {
    const answer = await this.#limiter.hit(this.prefix + key, this.#limits);
    if (!answer.allowed && this.#givesBackRefusals) this.#expect(key);
    return this.#info(answer);
  }

  /**
   * @param {string} key
   * @returns {Promise<Info | undefined>}
   */
  async get(key) {
    const answer = await this.#limiter.peek(this.prefix + key, this.#limits, { cost: 0 });
    return answer.remaining === answer.limit ? undefined : this.#info(answer);
  }

  /** @param {string} key */
  async decrement(key) {
    // A refusal was not recorded, so there is nothing to give back.
    const refused = this.#refused.get(key);
    if (refused !== undefined) {
      refused.shift();
      if (refused.length === 0) this.#refused.delete(key);
      return;
    }
    await this.#limiter.refund(this.prefix + key);
  }

  /** @param {string} key */
  async resetKey(key) {
    await this.#limiter.reset(this.prefix + key);
  }

  /** @param {string} key */
  #expect(key) {
    const now = performance.now();
    // With a `requestWasSuccessful` of one's own, a refusal may count as a success, and `decrement` never comes.
    for (const [known, times] of this.#refused) {
      if ((times.at(-1) ?? 0) > now - this.#window) break;
      this.#refused.delete(known);
    }
    const times = this.#refused.get(key) ?? [];
    this.#refused.delete(key);
    this.#refused.set(key, [...times.filter((time) => time > now - this.#window), now]);
  }

  /**
   * @param {import("./answer.js").Answer} answer
   * @returns {Info}
   */
  #info({ allowed, limit, remaining, retryAfter, nextAfter }) {
    const after = allowed ? nextAfter : (retryAfter ?? this.#window);
    return { totalHits: allowed ? limit - remaining : limit + 1, resetTime: new Date(Date.now() + after) };
  }
}
