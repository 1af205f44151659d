// The limiter: which engine is asked, what is remembered, and what happens while Redis is away.

import { Answer, binding } from "./answer.js";
import { forModule, forScript, prefixed, read } from "./call.js";
import { senderFor } from "./clients.js";
import { integer, parseLimits } from "./limits.js";
import { Local } from "./local.js";
import { Breaker, isOutage, isReply } from "./outage.js";
import { Refusals } from "./refusals.js";

/**
 * @typedef {import("./call.js").Call} Call
 * @typedef {import("./call.js").Key} Key
 * @typedef {import("./clients.js").Sender} Sender
 * @typedef {import("./limits.js").Limits} Limits
 * @typedef {"auto" | "module" | "script"} Engine
 *
 * Times are milliseconds.
 * @typedef {object} LimiterOptions
 * @property {Engine} [engine] `module`, `script`, or `auto` (the default), which is the module if the server has it.
 * @property {string} [prefix] Put before every key.
 * @property {number} [timeout] How long a call waits for a reply, 100 by default.
 * @property {"open" | "closed" | "local"} [fail] What happens while Redis is away: `open` (the default) allows, `closed` refuses,
 * `local` limits in this process.
 * @property {number} [pause] Time between two tries to reach Redis while it is away, 1,000 by default.
 * @property {number} [localShare] Part of each limit that `local` grants this process, above 0, up to 1 (the default): 0.25 for
 * four processes.
 * @property {number} [refusalCache] Longest time for which a refusal is remembered in this process, 1,000 by default; 0 for never.
 * @property {number} [maxKeys] How many keys are remembered at most, refusals and local logs each, 10,000 by default.
 * @property {(message: string) => void} [log] Told when an outage begins and when it ends, `console.warn` by default.
 *
 * @typedef {object} HitOptions
 * @property {number} [cost] Units, from 1 (the default) to 2^53 - 1.
 * @property {boolean} [strict] A refused hit is recorded as well, so that only silence helps.
 * @property {boolean} [force] The hit is recorded whatever the limits say; `allowed` tells whether it fitted.
 * @property {boolean} [tiers] The answer has the state of each limit, in `tiers`.
 */

/** Free connections that are kept for the next call that waits. */
const MOST_SPARES = 16;

/** The engine in use cannot do what was asked, such as waiting without the module. */
export class UnsupportedError extends Error {
  name = "UnsupportedError";
}

/** Redis is away; `error` says how. */
class Away extends Error {
  /** @param {Error} error */
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/** A rate limiter on a client. Share one in the whole process. */
export class Limiter {
  #sender;
  /** @type {Engine} */
  #engine;
  /** @type {Engine} */
  #found;
  #prefix;
  #timeout;
  #fail;
  #breaker;
  #refusals;
  #local;
  /** @type {Sender[]} */
  #spares = [];
  #isClosed = false;

  /**
   * `client` is one of node-redis (single, cluster, sentinel, pool) or of ioredis (single, cluster). It is yours to connect and to
   * close.
   * @param {import("./clients.js").Client} client
   * @param {LimiterOptions} [options]
   */
  constructor(client, options = {}) {
    const { engine = "auto", prefix = "", timeout = 100, fail = "open", pause = 1_000, localShare = 1 } = options;
    const { refusalCache = 1_000, maxKeys = 10_000, log = console.warn } = options;
    if (!["auto", "module", "script"].includes(engine)) throw new RangeError("engine must be auto, module or script");
    if (!["open", "closed", "local"].includes(fail)) throw new RangeError("fail must be open, closed or local");
    if (!(localShare > 0 && localShare <= 1)) throw new RangeError("localShare must be above 0, and at most 1");
    if (!(timeout > 0 && maxKeys >= 1 && pause >= 0 && refusalCache >= 0)) {
      throw new RangeError("timeout and maxKeys must be positive, pause and refusalCache at least 0");
    }
    if (typeof prefix !== "string") throw new TypeError("prefix must be a string");
    this.#sender = senderFor(client);
    this.#engine = this.#found = engine;
    this.#prefix = prefix;
    this.#timeout = timeout;
    this.#fail = fail;
    this.#breaker = new Breaker(pause, fail, log);
    this.#refusals = new Refusals(refusalCache, maxKeys);
    this.#local = new Local(localShare, maxKeys);
  }

  /** `module` or `script`; `auto` until the first call has found out. */
  get engine() {
    return this.#found;
  }

  /**
   * Records a hit on `key` if every limit allows it.
   *
   * `limits`: from 1 to 8, such as `"10/second"`, `"10/second;500/hour"` or `{ units: 10, window: 1000 }`. With `wait` the call
   * waits in line for its turn, for so many milliseconds at most (the module only); it takes a connection of its own meanwhile.
   *
   * Rejects with a TypeError or RangeError for wrong arguments, an UnsupportedError for what the engine cannot do, and the client's
   * error for what the server calls a mistake. It does not reject because Redis is away: see `fail`.
   * @param {Key} key
   * @param {Limits} limits
   * @param {HitOptions & { wait?: number }} [options]
   * @returns {Promise<Answer>}
   */
  async hit(key, limits, { cost = 1, strict = false, force = false, wait, tiers = false } = {}) {
    if (wait !== undefined && (strict || force)) throw new RangeError("wait cannot be combined with strict or force");
    if (wait !== undefined && !(wait > 0)) throw new RangeError("wait must be a positive number of milliseconds");
    const milliseconds = wait === undefined ? undefined : Math.max(1, Math.round(wait));
    const groups = [this.#group(key, limits, cost, 1)];
    return first(await this.#decide({ kind: "HIT", groups, mode: mode(strict, force), tiers, wait: milliseconds }));
  }

  /**
   * What `hit` would answer. It changes nothing. `cost: 0` describes the log as it is.
   * @param {Key} key
   * @param {Limits} limits
   * @param {{ cost?: number, tiers?: boolean }} [options]
   * @returns {Promise<Answer>}
   */
  async peek(key, limits, { cost = 1, tiers = false } = {}) {
    return first(await this.#decide({ kind: "PEEK", groups: [this.#group(key, limits, cost, 0)], tiers }));
  }

  /**
   * Charges several keys in one step, all or none: `[{ key, limits }, { key, limits, cost }]`.
   *
   * There is an answer for each key. In all of them `allowed` is the verdict on the call. In a cluster the keys must share a
   * hash tag.
   * @param {readonly { key: Key, limits: Limits, cost?: number }[]} charges
   * @param {{ strict?: boolean, force?: boolean, tiers?: boolean }} [options]
   * @returns {Promise<Answer[]>}
   */
  async hitMany(charges, { strict = false, force = false, tiers = false } = {}) {
    const groups = charges.map(({ key, limits, cost = 1 }) => this.#group(key, limits, cost, 1));
    if (groups.length === 0) throw new RangeError("hitMany needs a key");
    return this.#decide({ kind: "MHIT", groups, mode: mode(strict, force), tiers });
  }

  /**
   * Takes the newest units back, and returns how many. Refund only what was allowed.
   * @param {Key} key
   * @param {number} [units]
   * @returns {Promise<number>}
   */
  async refund(key, units = 1) {
    const group = { key: prefixed(this.#prefix, key), limits: [], cost: integer(units, 1, "units") };
    this.#refusals.forget(group.key);
    try {
      return Number(await this.#reach({ kind: "REFUND", groups: [group] }));
    } catch (error) {
      if (!(error instanceof Away)) throw error;
      return this.#fail === "local" ? this.#local.refund(group, now()) : 0;
    }
  }

  /**
   * Forgets the hits of keys, and returns how many were known. It rejects if Redis is away.
   * @param {Key[]} keys
   * @returns {Promise<number>}
   */
  async reset(...keys) {
    const groups = keys.map((key) => ({ key: prefixed(this.#prefix, key), limits: [], cost: 1 }));
    if (groups.length === 0) return 0;
    for (const { key } of groups) {
      this.#refusals.forget(key);
      this.#local.reset(key);
    }
    try {
      return Number(await this.#reach({ kind: "RESET", groups }));
    } catch (error) {
      // Nobody is asked for admission here, so nothing can stand in for Redis.
      throw error instanceof Away ? error.error : error;
    }
  }

  /** Closes the connections that were opened for calls that wait, but not your client. */
  close() {
    this.#isClosed = true;
    for (const spare of this.#spares.splice(0)) spare.close();
  }

  // How they are decided

  /** @param {Key} key @param {Limits} limits @param {number} cost @param {number} least */
  #group(key, limits, cost, least) {
    return { key: prefixed(this.#prefix, key), limits: parseLimits(limits), cost: integer(cost, least, "cost") };
  }

  /**
   * @param {Call} call
   * @returns {Promise<Answer[]>}
   */
  async #decide(call) {
    const asked = performance.now();
    const group = first(call.groups);
    const tiers = call.tiers === true;
    const remembers = call.kind === "HIT" && !call.mode && call.wait === undefined;
    const known = remembers ? this.#refusals.recall(group, tiers, asked) : undefined;
    if (known !== undefined) return [known];
    let answers;
    try {
      answers = read(call, await this.#reach(call));
    } catch (error) {
      if (error instanceof Away) return this.#withoutRedis(call);
      throw error;
    }
    const answer = first(answers);
    if (remembers && !answer.allowed) this.#refusals.remember(group, tiers, answer, asked, performance.now());
    return answers;
  }

  /**
   * The reply to a call. Rejects with Away if Redis is.
   * @param {Call} call
   */
  async #reach(call) {
    if (!this.#breaker.admits(performance.now())) throw new Away(new Error("Redis is away"));
    try {
      const reply = await this.#ask(call);
      this.#answered();
      return reply;
    } catch (error) {
      if (isOutage(error)) {
        this.#breaker.failed(/** @type {Error} */ (error), performance.now());
        throw new Away(/** @type {Error} */ (error));
      }
      if (isReply(error)) this.#answered();
      throw error;
    }
  }

  #answered() {
    if (!this.#breaker.answered(performance.now())) return;
    this.#local.clear();
    // It may be another server now.
    this.#found = this.#engine;
  }

  /**
   * Asks the engine that the server has. The first call finds out which, and again if the server changes.
   * @param {Call} call
   */
  async #ask(call) {
    let [engine, hasNoModule, whole] = [this.#found, false, false];
    for (;;) {
      try {
        const reply = engine === "script" ? await this.#askScript(call, whole) : await this.#askModule(call);
        this.#found = engine === "script" ? "script" : "module";
        return reply;
      } catch (error) {
        if (!isReply(error)) throw error;
        if (engine === "script") {
          if (whole || !error.message.startsWith("NOSCRIPT")) throw error;
          // The server is another one, or was restarted. It may have the module now.
          whole = true;
          if (this.#engine === "auto" && !hasNoModule) engine = "auto";
        } else {
          if (this.#engine === "module" || !/unknown (redis )?command/i.test(error.message)) throw error;
          // Older modules have no REFUND, which must not be taken for no module.
          if (call.kind === "REFUND" && (await this.#hasModule())) throw error;
          [engine, hasNoModule] = ["script", true];
        }
      }
    }
  }

  /** @param {Call} call */
  async #askModule(call) {
    const { name, keys, words } = forModule(call);
    if (call.wait === undefined) return inTime(this.#sender.module(name, keys, words, this.#timeout), this.#timeout);
    // A call that blocks keeps all others on its connection waiting.
    const spare = this.#spares.pop() ?? this.#sender.spare();
    const timeout = call.wait + this.#timeout;
    try {
      const reply = await inTime(spare.module(name, keys, words, timeout), timeout);
      if (this.#isClosed || this.#spares.length >= MOST_SPARES) spare.close();
      else this.#spares.push(spare);
      return reply;
    } catch (error) {
      spare.close();
      throw error;
    }
  }

  /**
   * @param {Call} call
   * @param {boolean} whole
   */
  async #askScript(call, whole) {
    if (call.wait !== undefined) {
      throw new UnsupportedError("wait needs the module, which this server has not loaded");
    }
    const { keys, words } = forScript(call);
    const sent =
      call.kind === "RESET"
        ? this.#sender.unlink(keys, this.#timeout)
        : this.#sender.script(keys, words, whole, this.#timeout);
    return inTime(sent, this.#timeout);
  }

  async #hasModule() {
    try {
      await inTime(this.#sender.module("RATELIMIT.PEEK", ["key"], ["1", "1s"], this.#timeout), this.#timeout);
    } catch (error) {
      return !(isReply(error) && /unknown (redis )?command/i.test(error.message));
    }
    return true;
  }

  // Without Redis

  /**
   * @param {Call} call
   * @returns {Answer[]}
   */
  #withoutRedis(call) {
    const table = this.#fail === "local" ? this.#local.ask(call, now()) : this.#constant(call);
    return call.groups.map(({ limits }, at) => binding(table[at] ?? [], limits, this.#fail, call.tiers === true));
  }

  /** @param {Call} call */
  #constant({ groups }) {
    const wait = Math.max(1, Math.ceil(this.#breaker.left(performance.now())));
    return groups.map(({ limits, cost }) =>
      limits.map(({ units }) =>
        this.#fail === "open" ? [1, units, Math.max(0, units - cost), 0, 0, 0] : [0, units, 0, wait, wait, wait],
      ),
    );
  }
}

/** Whole milliseconds of the monotonic clock. */
function now() {
  return Math.floor(performance.now());
}

/**
 * @param {boolean} strict
 * @param {boolean} force
 */
function mode(strict, force) {
  if (strict && force) throw new RangeError("strict and force exclude each other");
  return strict ? "STRICT" : force ? "FORCE" : "";
}

/**
 * @template T
 * @param {readonly T[]} list
 */
function first(list) {
  return /** @type {T} */ (list[0]);
}

/**
 * The promise's value, or an error if that takes too long: time-outs of the clients end once a command is written.
 * @template T
 * @param {Promise<T>} promise
 * @param {number} timeout milliseconds
 * @returns {Promise<T>}
 */
function inTime(promise, timeout) {
  const sent = performance.now();
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error(`no answer in ${timeout} ms`));
    let timer = setTimeout(() => {
      // A process that was busy has read no reply, and perhaps not even sent the call. So it gets the time once more.
      if (performance.now() - sent > timeout * 1.2) timer = setTimeout(fail, timeout);
      else fail();
    }, timeout);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
