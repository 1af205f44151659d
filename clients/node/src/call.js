// One call of a limiter, and the words that are sent for it.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { Answer, binding } from "./answer.js";

/**
 * @typedef {string | Buffer} Key
 * @typedef {import("./limits.js").Limit} Limit
 * @typedef {import("./answer.js").Source} Source
 *
 * What one key is charged.
 * @typedef {{ key: Key, limits: readonly Limit[], cost: number }} Group
 *
 * `wait` is in milliseconds; undefined does not wait.
 * @typedef {{
 *   kind: "HIT" | "PEEK" | "MHIT" | "REFUND" | "RESET",
 *   groups: readonly Group[],
 *   mode?: "" | "STRICT" | "FORCE",
 *   tiers?: boolean,
 *   wait?: number | undefined,
 * }} Call
 */

/** Added to a key by the script, so that its logs and those of the module are never at the same key. */
const SUFFIX = ":ratelimit";

/** The script that all clients share, and its digest. */
export const SCRIPT = readFileSync(new URL("ratelimit.lua", import.meta.url), "utf8");
export const DIGEST = createHash("sha1").update(SCRIPT).digest("hex");

/**
 * @param {string} prefix
 * @param {Key} key
 * @returns {Key}
 */
export function prefixed(prefix, key) {
  if (typeof key === "string") return prefix + key;
  if (!Buffer.isBuffer(key)) throw new TypeError("a key must be a string or a Buffer");
  return prefix === "" ? key : Buffer.concat([Buffer.from(prefix), key]);
}

/**
 * What a key is known by in this process.
 * @param {Key} key
 */
export function idOf(key) {
  return typeof key === "string" ? key : `\0${key.toString("latin1")}`;
}

/**
 * Sets the newest entry of a map, which forgets the oldest ones beyond `size`.
 * @template T
 * @param {Map<string, T>} map
 * @param {Key} key
 * @param {T} value
 * @param {number} size
 */
export function remember(map, key, value, size) {
  const id = idOf(key);
  map.delete(id);
  map.set(id, value);
  for (const oldest of map.keys()) {
    if (map.size <= size) break;
    map.delete(oldest);
  }
}

/**
 * What the module is asked: the command, its keys, and what follows them.
 * @param {Call} call
 * @returns {{ name: string, keys: Key[], words: string[] }}
 */
export function forModule(call) {
  const name = `RATELIMIT.${call.kind}`;
  const keys = call.groups.map((group) => group.key);
  if (call.kind === "RESET") return { name, keys, words: [] };
  if (call.kind === "REFUND") return { name, keys, words: ["COST", `${call.groups[0]?.cost}`] };
  const wait = call.wait === undefined ? [] : ["WAIT", `${call.wait}ms`];
  return { name, keys, words: [...groups(call, "ms"), ...options(call), ...wait] };
}

/**
 * What the script is asked: its keys, and its arguments.
 * @param {Call} call
 * @returns {{ keys: Key[], words: string[] }}
 */
export function forScript(call) {
  const keys = call.groups.map(({ key }) =>
    typeof key === "string" ? key + SUFFIX : Buffer.concat([key, Buffer.from(SUFFIX)]),
  );
  if (call.kind === "REFUND") return { keys, words: ["REFUND", "COST", `${call.groups[0]?.cost}`] };
  return { keys, words: [...groups(call, ""), ...(call.kind === "PEEK" ? ["PEEK"] : []), ...options(call)] };
}

/** @param {Call} call */
function options({ mode, tiers }) {
  return [...(mode ? [mode] : []), ...(tiers ? ["WITHTIERS"] : [])];
}

/**
 * @param {Call} call
 * @param {string} suffix
 */
function groups(call, suffix) {
  return call.groups.flatMap(({ limits, cost }, at) => [
    ...(at > 0 ? ["AND"] : []),
    ...limits.flatMap(({ units, window }) => [`${units}`, `${window}${suffix}`]),
    ...(cost === 1 ? [] : ["COST", `${cost}`]),
  ]);
}

/**
 * The answers in a reply to HIT, PEEK or MHIT, one for each group.
 * @param {Call} call
 * @param {any} reply
 * @returns {Answer[]}
 */
export function read(call, reply) {
  const replies = call.kind === "MHIT" ? reply : [reply];
  return call.groups.map(({ limits }, at) => {
    const found = replies[at];
    if (!call.tiers) return new Answer(found.map(Number), limits, "redis");
    return binding(found.map((/** @type {any[]} */ six) => six.map(Number)), limits, "redis", true);
  });
}
