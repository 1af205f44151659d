export { Answer } from "./answer.js";
export { Limiter, UnsupportedError } from "./limiter.js";
export { parseLimits } from "./limits.js";

/**
 * @typedef {import("./answer.js").Source} Source
 * @typedef {import("./call.js").Key} Key
 * @typedef {import("./limiter.js").Engine} Engine
 * @typedef {import("./limiter.js").HitOptions} HitOptions
 * @typedef {import("./limiter.js").LimiterOptions} LimiterOptions
 * @typedef {import("./limits.js").Limit} Limit
 * @typedef {import("./limits.js").Limits} Limits
 */
