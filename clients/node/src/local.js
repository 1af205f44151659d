// Exact limits in this process, for the time when Redis is away.

import { idOf, remember } from "./call.js";
import { MAX_UNITS } from "./limits.js";

/**
 * @typedef {import("./call.js").Call} Call
 * @typedef {import("./call.js").Group} Group
 * @typedef {import("./limits.js").Limit} Limit
 */

/**
 * The first place of a sorted list at which `isThere` holds, or its length.
 * @param {readonly number[]} list
 * @param {(value: number) => boolean} isThere
 */
function firstOf(list, isThere) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isThere(/** @type {number} */ (list[middle]))) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Hits of one key: their times in milliseconds, and the total of units before the first and after each. */
class Log {
  /** @type {number[]} */
  times = [];
  totals = [0];
  /** The longest window. */
  kept = 0;

  copy() {
    return Object.assign(new Log(), { times: [...this.times], totals: [...this.totals], kept: this.kept });
  }

  get total() {
    return this.totals.at(-1) ?? 0;
  }

  /**
   * @param {number} now
   * @param {number} window
   */
  first(now, window) {
    return firstOf(this.times, (time) => time > now - window);
  }

  /**
   * @param {number} now
   * @param {number} window
   */
  used(now, window) {
    return this.total - (this.totals[this.first(now, window)] ?? 0);
  }

  /**
   * @param {number} now
   * @param {number} cost
   */
  add(now, cost) {
    // Like the server's, a log remembers its newest 2^53 - 1 units.
    const surplus = cost - (MAX_UNITS - this.total);
    if (surplus > 0) this.#drop(firstOf(this.totals, (total) => total > surplus) - 1, surplus);
    this.times.push(now);
    this.totals.push(this.total + cost);
  }

  /**
   * Drops the hits that have left the longest window, once they are half of all.
   * @param {number} now
   * @param {number} window
   */
  keep(now, window) {
    this.kept = Math.max(this.kept, window);
    const first = this.first(now, this.kept);
    if (first > this.times.length / 2) this.#drop(first, this.totals[first] ?? 0);
  }

  /**
   * @param {number} hits
   * @param {number} base the total from which it counts anew
   */
  #drop(hits, base) {
    this.times.splice(0, hits);
    this.totals = this.totals.slice(hits).map((total) => Math.max(0, total - base));
  }

  /**
   * @param {number} units
   * @param {number} now
   */
  refund(units, now) {
    const given = Math.min(units, this.used(now, this.kept));
    const left = this.total - given;
    const keep = firstOf(this.totals, (total) => total > left) - 1;
    this.times.length = keep;
    this.totals.length = keep + 1;
    if (left > this.total) this.add(now, left - this.total);
    return given;
  }
}

/** Decides like the server, by `share` of each limit (rounded down, but at least 1), on at most `size` keys. */
export class Local {
  /** @type {Map<string, Log>} */
  #logs = new Map();
  #share;
  #size;

  /**
   * @param {number} share
   * @param {number} size
   */
  constructor(share, size) {
    this.#share = share;
    this.#size = size;
  }

  clear() {
    this.#logs.clear();
  }

  /** @param {import("./call.js").Key} key */
  reset(key) {
    this.#logs.delete(idOf(key));
  }

  /**
   * @param {Group} group
   * @param {number} now
   */
  refund({ key, cost }, now) {
    return this.#logs.get(idOf(key))?.refund(cost, now) ?? 0;
  }

  /**
   * The six integers of each tier of each key.
   * @param {Call} call
   * @param {number} now milliseconds
   */
  ask(call, now) {
    const states = call.groups.map((group) => {
      const log = this.#logs.get(idOf(group.key)) ?? new Log();
      const hasRoom = group.limits.every((limit) => group.cost <= this.#part(limit) - log.used(now, limit.window));
      return { group, log, hasRoom: group.cost === 0 || hasRoom };
    });
    const allowed = states.every(({ hasRoom }) => hasRoom);
    return states.map(({ group, log, hasRoom }) => {
      const isPossible = group.limits.every((limit) => group.cost <= this.#part(limit));
      const refused = !allowed && !hasRoom;
      const isStored =
        group.cost > 0 && (allowed || call.mode === "FORCE" || (call.mode === "STRICT" && refused && isPossible));
      const seen = call.kind === "PEEK" && isStored ? log.copy() : log;
      if (isStored) seen.add(now, group.cost);
      if (isStored && call.kind !== "PEEK") this.#store(group, log, now);
      return group.limits.map((limit) => this.#six(seen, group.cost, limit, now, allowed, refused));
    });
  }

  /**
   * @param {Group} group
   * @param {Log} log
   * @param {number} now
   */
  #store({ key, limits }, log, now) {
    log.keep(now, Math.max(...limits.map(({ window }) => window)));
    remember(this.#logs, key, log, this.#size);
  }

  /** @param {Limit} limit */
  #part({ units }) {
    return this.#share < 1 ? Math.max(Math.floor(units * this.#share), Math.min(units, 1)) : units;
  }

  /**
   * @param {Log} log
   * @param {number} cost
   * @param {Limit} limit
   * @param {number} now
   * @param {boolean} allowed
   * @param {boolean} refused
   */
  #six(log, cost, limit, now, allowed, refused) {
    const { window } = limit;
    const units = this.#part(limit);
    const [first, used] = [log.first(now, window), log.used(now, window)];
    let retry = 0;
    if (refused && cost > units) retry = -1;
    else if (refused && used > units - cost) {
      // The hit with which enough units have left.
      const goal = log.total - (units - cost);
      const leaving = Math.max(first, firstOf(log.totals, (total) => total >= goal) - 1);
      retry = (log.times[leaving] ?? now) + window - now;
    }
    /** @param {number | undefined} time */
    const until = (time) => (used > 0 && time !== undefined ? time + window - now : 0);
    const [reset, next] = [until(log.times.at(-1)), until(log.times[first])];
    return [allowed ? 1 : 0, units, Math.max(0, units - used), retry, reset, next];
  }
}
