// Whether Redis answers: a circuit breaker.

// What a server says that is there but cannot serve.
const UNABLE = /^(BUSY |CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED)/;
// Those of the language, that of the limiter, and that of node-redis for a client before `connect()` or after it was closed.
const MISTAKES = new Set(["TypeError", "RangeError", "ReferenceError", "SyntaxError", "UnsupportedError", "ClientClosedError"]);

/**
 * Whether the server has said this, and not the client.
 * @param {unknown} error
 * @returns {error is Error}
 */
export function isReply(error) {
  // Neither client is imported here, so their classes are known by name: ErrorReply and its children in node-redis,
  // ReplyError in ioredis.
  for (let at = error; at instanceof Error; at = Object.getPrototypeOf(at)) {
    if (["ErrorReply", "ReplyError"].includes(at.constructor.name)) return true;
  }
  return false;
}

/**
 * Whether Redis is away, or cannot serve. Everything else is a mistake of the caller, and thrown.
 * @param {unknown} error
 * @returns {boolean}
 */
export function isOutage(error) {
  if (!(error instanceof Error) || MISTAKES.has(error.constructor.name)) return false;
  return isReply(error) ? UNABLE.test(error.message) : true;
}

/** After a failure nobody asks Redis for `pause` milliseconds. Then one call tries, and so on until one is answered. */
export class Breaker {
  /** @type {number | undefined} */
  #since;
  #until = 0;
  #pause;
  #fail;
  #log;

  /**
   * @param {number} pause
   * @param {string} fail
   * @param {(message: string) => void} log
   */
  constructor(pause, fail, log) {
    this.#pause = pause;
    this.#fail = fail;
    this.#log = log;
  }

  /**
   * Whether a call may ask Redis. Times are those of the monotonic clock.
   * @param {number} now
   */
  admits(now) {
    if (this.#since === undefined) return true;
    if (now < this.#until) return false;
    this.#until = now + this.#pause;
    return true;
  }

  /**
   * Milliseconds until the next try.
   * @param {number} now
   */
  left(now) {
    return Math.max(0, this.#until - now);
  }

  /**
   * @param {Error} error
   * @param {number} now
   */
  failed(error, now) {
    this.#until = now + this.#pause;
    if (this.#since !== undefined) return;
    this.#since = now;
    this.#log(`redis-ratelimit: Redis is away (${error.message}), limits fail ${this.#fail} until it answers`);
  }

  /**
   * True if Redis was away until now.
   * @param {number} now
   */
  answered(now) {
    if (this.#since === undefined) return false;
    this.#log(`redis-ratelimit: Redis answers again after ${((now - this.#since) / 1_000).toFixed(1)} s`);
    this.#since = undefined;
    return true;
  }
}
