// What a caller is told.

import { nameOf } from "./limits.js";

const LARGEST = 10 ** 15 - 1; // of integers in structured fields (RFC 8941)

/**
 * Who answered: `redis`; `cache`, a refusal remembered in this process; the others where Redis is away.
 * @typedef {"redis" | "cache" | "open" | "closed" | "local"} Source
 * @typedef {import("./limits.js").Limit} Limit
 */

/** The answer to a hit or a peek. Units are integers; times are whole milliseconds from now on, never rounded down. */
export class Answer {
  /**
   * @param {readonly number[]} six
   * @param {readonly Limit[]} policy
   * @param {Source} source
   * @param {readonly Answer[]} [tiers]
   */
  constructor(six, policy, source, tiers = []) {
    const [allowed = 0, limit = 0, remaining = 0, retryAfter = 0, resetAfter = 0, nextAfter = 0] = six;
    /** Whether the hit may happen. For several keys, the verdict on all of them. */
    this.allowed = allowed === 1;
    /** Units of the limit that binds: of those that refuse that with the longest wait, else with the fewest left. */
    this.limit = limit;
    /** Units left in that limit after this call, at least 0. */
    this.remaining = remaining;
    /**
     * 0 if allowed; else the exact time until the same call would be, if nothing else happens; null for never.
     * @type {number | null}
     */
    this.retryAfter = retryAfter < 0 ? null : retryAfter;
    /** Time until that limit is unused again; 0 if it is now. */
    this.resetAfter = resetAfter;
    /** Time until its oldest hit leaves the window, so that there is more room; 0 if it is unused. */
    this.nextAfter = nextAfter;
    /** An answer for each limit of the call, in order, if it asked for them with `tiers: true`. */
    this.tiers = tiers;
    /** The limits of the call. */
    this.policy = policy;
    this.source = source;
  }

  /**
   * Header fields for the response, as draft-ietf-httpapi-ratelimit-headers-10 defines them.
   *
   * `RateLimit-Policy` names all limits of the call, `RateLimit` the one that binds, or all if the call asked for `tiers`.
   * A refusal has `Retry-After`, unless it is for ever. A single limit is called `name`, one of several `10/1s`. `legacy`
   * adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds since the epoch). Times are rounded
   * up to seconds.
   * @param {{ name?: string, legacy?: boolean }} [options]
   * @returns {Record<string, string>}
   */
  headers({ name = "default", legacy = false } = {}) {
    const names = this.names(name);
    /** @param {Answer} answer @param {number} at */
    const row = (answer, at) => `"${names[at]}";r=${Math.min(answer.remaining, LARGEST)};t=${seconds(answer.nextAfter)}`;
    // Of two limits with the same units it may be the other one; `tiers` tells them apart.
    const binding = Math.max(0, this.policy.findIndex((limit) => limit.units === this.limit));
    /** @type {Record<string, string>} */
    const fields = {
      "RateLimit-Policy": this.policy
        .map((limit, at) => `"${names[at]}";q=${Math.min(limit.units, LARGEST)};w=${seconds(limit.window)}`)
        .join(", "),
      RateLimit: this.tiers.length > 0 ? this.tiers.map(row).join(", ") : row(this, binding),
    };
    if (!this.allowed && this.retryAfter !== null) fields["Retry-After"] = `${seconds(this.retryAfter)}`;
    if (legacy) {
      fields["X-RateLimit-Limit"] = `${this.limit}`;
      fields["X-RateLimit-Remaining"] = `${this.remaining}`;
      fields["X-RateLimit-Reset"] = `${seconds(Date.now() + this.resetAfter)}`;
    }
    return fields;
  }

  /**
   * What the limits are called in headers.
   * @param {string} name
   */
  names(name) {
    return this.policy.length === 1 ? [name] : this.policy.map(nameOf);
  }

  /**
   * The same refusal, so many milliseconds later, as it is remembered in this process.
   * @param {number} elapsed
   * @returns {Answer}
   */
  later(elapsed) {
    /** @param {number} after */
    const left = (after) => Math.max(0, Math.ceil(after - elapsed));
    const retry = this.retryAfter === null ? -1 : left(this.retryAfter);
    const six = [this.allowed ? 1 : 0, this.limit, this.remaining, retry, left(this.resetAfter), left(this.nextAfter)];
    return new Answer(six, this.policy, "cache", this.tiers.map((tier) => tier.later(elapsed)));
  }
}

/**
 * Whole seconds, rounded up.
 * @param {number} milliseconds
 */
export function seconds(milliseconds) {
  return Math.ceil(milliseconds / 1_000);
}

/**
 * The tier that binds, with all of them to `keep`: see `Answer.limit`. Among equals it is the earlier one.
 * @param {readonly (readonly number[])[]} table six integers for each tier
 * @param {readonly Limit[]} policy
 * @param {Source} source
 * @param {boolean} keep
 */
export function binding(table, policy, source, keep) {
  const refused = table.some((six) => six[3] !== 0);
  /** @param {readonly number[]} six */
  const rank = ([, , remaining = 0, retry = 0]) => (!refused ? -remaining : retry < 0 ? Infinity : retry);
  const six = table.reduce((best, one) => (rank(one) > rank(best) ? one : best));
  return new Answer(six, policy, source, keep ? table.map((one) => new Answer(one, policy, source)) : []);
}
