// What the frameworks share: a rule, the key of a client, the headers, and the answer to a refused request.

import { createHash } from "node:crypto";
import { isIPv6 } from "node:net";

import { seconds } from "./answer.js";
import { Limiter } from "./limiter.js";
import { integer, parseLimits } from "./limits.js";

/**
 * @typedef {import("./answer.js").Answer} Answer
 * @typedef {import("./limits.js").Limits} Limits
 */

/**
 * A limit on requests. Functions get the request, and may be async. An error in them is the application's.
 * @template Request
 * @typedef {object} Rule
 * @property {string} [name] Limits of the same name share one log for each client. `default` by default.
 * @property {Limits | ((request: Request) => Limits | null | Promise<Limits | null>)} limits From 1 to 8, all or nothing; null
 * exempts a request.
 * @property {(request: Request) => string | number | Promise<string | number>} [by] Whose log it is, by default the client's
 * address, of IPv6 the /64.
 * @property {number | ((request: Request) => number | Promise<number>)} [cost] What a request weighs, 1 by default. 0 charges
 * nothing and is never refused.
 * @property {boolean} [strict] Refused requests count as well.
 * @property {number | readonly number[] | ((status: number) => boolean)} [refundIf] Answers that do not count: a status, several,
 * or a function of the status. What was refused is never given back.
 * @property {boolean} [legacy] Sends `X-RateLimit-*` as well.
 */

/**
 * What one request was charged. `settle` gives back what the answer's status says.
 * @typedef {{ answer: Answer, headers: Record<string, string>, settle: ((status: number) => void) | undefined }} Charged
 */

export const PROBLEM = "application/problem+json";
const MAX_NAME = 128; // bytes of a client's name in a key; a longer one is hashed

/**
 * Returns what charges a request, or null if that is exempt.
 * @template Request
 * @param {Limiter} limiter
 * @param {Rule<Request>} rule
 * @returns {(request: Request, address: string | undefined) => Promise<Charged | null>}
 */
export function charger(limiter, rule) {
  const { name = "default", limits, by, cost = 1, strict = false, refundIf = [], legacy = false } = rule;
  if (!(limiter instanceof Limiter)) throw new TypeError("the first argument must be a Limiter");
  if (!/^[\w.-]+$/.test(name)) throw new RangeError("a limit needs a name of letters, digits, '_', '.' and '-'");
  if (typeof limits !== "function") parseLimits(limits);
  if (typeof cost !== "function") integer(cost, 0, "cost");
  const statuses = [refundIf].flat();
  const refunds = typeof refundIf === "function" ? refundIf : (/** @type {number} */ status) => statuses.includes(status);

  return async (request, address) => {
    // Every fault of the program is found before anything is charged.
    const asked = typeof limits === "function" ? await limits(request) : limits;
    if (asked === null) return null;
    const policy = parseLimits(asked);
    const key = keyOf(name, by ? await by(request) : network(address));
    const units = integer(typeof cost === "function" ? await cost(request) : cost, 0, "cost");
    const tiers = policy.length > 1;
    const answer =
      units > 0
        ? await limiter.hit(key, policy, { cost: units, strict, tiers })
        : await limiter.peek(key, policy, { cost: 0, tiers });
    const headers = answer.headers({ name, legacy });
    // While Redis is away nobody knows what is left.
    if (answer.source === "open" || answer.source === "closed") delete headers.RateLimit;
    if (!answer.allowed || units === 0 || refundIf === statuses) return { answer, headers, settle: undefined };
    const settle = (/** @type {number} */ status) => {
      // The answer is sent. An error from here would end the process.
      Promise.resolve()
        .then(() => (refunds(status) ? limiter.refund(key, units) : 0))
        .catch((error) => console.error(`redis-ratelimit: not refunded: ${error}`));
    };
    return { answer, headers, settle };
  };
}

/**
 * The key of a client's log, for the limiter's `reset` and `peek`. `client` is what `by` returned.
 * @param {string} name
 * @param {string | number} client
 */
export function keyOf(name, client) {
  // Others have no text, or the same for all of them.
  if (typeof client !== "string" && !Number.isFinite(client)) {
    const found = client === null || typeof client === "number" ? client : typeof client;
    throw new TypeError(`${name}: by returned ${found}, not a string or a number`);
  }
  const text = `${client}`;
  const isLong = Buffer.byteLength(text) > MAX_NAME;
  return `rl:${name}:${isLong ? createHash("sha256").update(text).digest("hex") : text}`;
}

/**
 * The IPv4 address, or the /64 of an IPv6 address: whoever has one address of a /64 has all of them.
 * @param {string | undefined} address
 */
export function network(address) {
  if (!address) return "unknown";
  if (!isIPv6(address)) return address;
  // A URL has only one spelling for it: at most one `::`, and never `::ffff:192.0.2.1`, which is an IPv4 address.
  const [head = "", tail = ""] = new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1).split("::");
  const [left, right] = [head ? head.split(":") : [], tail ? tail.split(":") : []];
  const groups = [...left, ...Array(8 - left.length - right.length).fill("0"), ...right];
  if (groups.slice(0, 6).join() !== "0,0,0,0,0,ffff") return `${groups.slice(0, 4).join(":")}::/64`;
  return groups.slice(6).flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]).join(".");
}

/**
 * The answer to a refused request: 429, or 503 where Redis is away and the limiter says `fail: "closed"`, which is not the
 * client's fault. As RFC 9457 and draft-ietf-httpapi-ratelimit-headers-10 have it.
 * @param {string} name
 * @param {Answer} answer
 */
export function problem(name, answer) {
  if (answer.source === "closed") {
    const detail = "The rate limiter does not answer.";
    return { type: "about:blank", title: "Service Unavailable", status: 503, detail };
  }
  const names = answer.names(name);
  return {
    type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: "Request cannot be satisfied as assigned quota has been exceeded",
    status: 429,
    detail: answer.retryAfter === null ? "No wait helps." : `Try again in ${seconds(answer.retryAfter)} s.`,
    "violated-policies": answer.tiers.length > 0 ? names.filter((_, at) => answer.tiers[at]?.retryAfter !== 0) : [name],
  };
}
