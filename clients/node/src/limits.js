// What a limit is, and how it is spelled.

export const MAX_UNITS = Number.MAX_SAFE_INTEGER; // 2^53 - 1
const MAX_WINDOW = 3650 * 86_400_000;
const MAX_TIERS = 8;

/**
 * At most `units` in any `window` of milliseconds.
 * @typedef {{ readonly units: number, readonly window: number }} Limit
 *
 * One limit, or several: `"10/second"`, `"10/second;500/hour"`, `{ units: 10, window: 1000 }`, or an array of these.
 * @typedef {string | Limit | readonly (string | Limit)[]} Limits
 */

const UNITS = new Map(
  /** @type {[string, number][]} */ ([
    ["ms millisecond milliseconds", 1],
    ["s sec secs second seconds", 1_000],
    ["m min mins minute minutes", 60_000],
    ["h hr hrs hour hours", 3_600_000],
    ["d day days", 86_400_000],
    ["w week weeks", 604_800_000],
  ]).flatMap(([names, length]) => names.split(" ").map((name) => /** @type {const} */ ([name, length]))),
);
const TEXT = /^\s*([0-9]+)\s*(?:\/|\bper\b)\s*(?:([0-9]+)(?:\.([0-9]+))?)?\s*([a-z]+)\s*$/;
const RANGE = "a window must be a whole number of milliseconds, from 1 ms to 3650 days";

/**
 * Checks a number of units: TypeError unless it is an integer, RangeError outside of its range.
 * @param {unknown} value
 * @param {number} least
 * @param {string} name
 * @returns {number}
 */
export function integer(value, least, name) {
  if (typeof value !== "number" || (!Number.isInteger(value) && Number.isFinite(value)) || Number.isNaN(value)) {
    throw new TypeError(`${name} must be an integer`);
  }
  if (value < least || value > MAX_UNITS) throw new RangeError(`${name} must be from ${least} to 2^53 - 1`);
  return value;
}

/**
 * @param {unknown} units
 * @param {unknown} window
 * @returns {Limit}
 */
function limit(units, window) {
  if (typeof window !== "number" || !Number.isInteger(window) || window < 1 || window > MAX_WINDOW) {
    throw new RangeError(RANGE);
  }
  return Object.freeze({ units: integer(units, 0, "a limit"), window });
}

/** @param {string} text */
function parse(text) {
  const [, units = "", whole = "1", decimals = "", name = ""] = TEXT.exec(text.toLowerCase()) ?? [];
  const unit = UNITS.get(name);
  if (unit === undefined) {
    throw new RangeError(`${JSON.stringify(text)} is not a limit like 10/second, 100 per minute or 5/30s`);
  }
  // Decimals are no binary fractions, so this must not be done with floats: 0.3 seconds are 300 ms.
  const window = BigInt(whole + decimals) * BigInt(unit);
  const scale = 10n ** BigInt(decimals.length);
  if (window % scale !== 0n) throw new RangeError(RANGE);
  return limit(Number(units), Number(window / scale));
}

/** @type {Map<string, readonly Limit[]>} */
const parsed = new Map();

/**
 * All limits of a call, from 1 to 8. RangeError or TypeError for what is none.
 * @param {Limits} limits
 * @returns {readonly Limit[]}
 */
export function parseLimits(limits) {
  if (typeof limits === "string") {
    let found = parsed.get(limits);
    if (found === undefined) {
      found = checked(limits.split(";").map(parse));
      if (parsed.size < 1_000) parsed.set(limits, found);
    }
    return found;
  }
  const list = Array.isArray(limits) ? limits : [limits];
  return checked(
    list.flatMap((one) => {
      if (typeof one === "string") return one.split(";").map(parse);
      if (one === null || typeof one !== "object") throw new TypeError("a limit must be a string or { units, window }");
      return [limit(one.units, one.window)];
    }),
  );
}

/**
 * @param {Limit[]} found
 * @returns {readonly Limit[]}
 */
function checked(found) {
  if (found.length < 1 || found.length > MAX_TIERS) {
    throw new RangeError(`from 1 to ${MAX_TIERS} limits are allowed, not ${found.length}`);
  }
  return Object.freeze(found);
}

/**
 * As in `10/1s`, `5/30s` or `20/1500ms`.
 * @param {Limit} limit
 */
export function nameOf({ units, window }) {
  const [suffix, length] = /** @type {[string, number][]} */ ([
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ]).find(([, unit]) => window % unit === 0) ?? ["ms", 1];
  return `${units}/${window / length}${suffix}`;
}
