// Express, with limits by address: PORT=3000 node server.mjs
//
// Behind a proxy, set TRUST_PROXY to the proxies that may name the client's address, such as "loopback" (see "trust
// proxy" in Express). Without it all clients have the proxy's address and share one limit.

import { isIPv6 } from "node:net";

import express from "express";
import { createClient, ErrorReply } from "redis";

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
// How long a request waits for a decision, in milliseconds.
const PATIENCE = 100;
// No command waits while the server is away, and few wait for one that has stopped answering.
const redis = createClient({ url, disableOfflineQueue: true, commandsQueueMaxLength: 1000 });
redis.on("error", (error) => console.error(`Redis: ${error.message}`));

// With these errors Redis cannot serve now. Any other error is a bug in the call and must be seen.
const AWAY = /^(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|ERR unknown command)\b/;

/** The promise's value, or an error if that takes too long. (The client's own time-out only covers sending.) */
async function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The IPv4 address, or the /64 of an IPv6 address: whoever has one address of a /64 has all of them. */
function network(address) {
  if (!isIPv6(address)) return address;
  // A URL has only one spelling for it: at most one `::`, and never `::ffff:192.0.2.1`, which is an IPv4 address.
  const [head, tail] = new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1).split("::");
  const [left, right] = [head, tail].map((part) => (part ? part.split(":") : []));
  const groups = [...left, ...Array(8 - left.length - right.length).fill("0"), ...right];
  if (groups.slice(0, 6).join() !== "0,0,0,0,0,ffff") return `${groups.slice(0, 4).join(":")}::/64`;
  return groups.slice(6).flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]).join(".");
}

/** Middleware that admits `limit` requests in any `window` seconds and tells the client what is left. The name is part of
 * the key, so limits with different names do not count each other's requests. */
function rateLimit({ name, limit, window, by = (request) => network(request.ip) }) {
  if (!/^[\w.-]+$/.test(name ?? "")) throw new TypeError("a limit needs a name of letters, digits, '_', '.' and '-'");
  return async (request, response, next) => {
    let reply;
    try {
      const key = `rl:${name}:${by(request)}`;
      reply = await inTime(redis.sendCommand(["RATELIMIT.HIT", key, `${limit}`, `${window}`]));
    } catch (error) {
      if (error instanceof ErrorReply && !AWAY.test(error.message)) return next(error);
      console.error(`not limited: ${error.message}`);
      return next(); // Fail open: without Redis, requests pass. To fail closed: response.sendStatus(503).
    }
    const [allowed, , remaining, retryAfter, , nextAfter] = reply;
    response.append("RateLimit-Policy", `"${name}";q=${limit};w=${window}`);
    response.append("RateLimit", `"${name}";r=${remaining};t=${Math.ceil(nextAfter / 1000)}`);
    if (allowed) return next();
    if (retryAfter > 0) response.set("Retry-After", `${Math.ceil(retryAfter / 1000)}`);
    response.status(429).type("application/problem+json").send({ title: "Too Many Requests", status: 429 });
  };
}

const app = express();
if (process.env.TRUST_PROXY) app.set("trust proxy", process.env.TRUST_PROXY);
app.use(rateLimit({ name: "default", limit: 5, window: 10 }));
app.get("/", (request, response) => response.send("Hello\n"));
app.get("/report", rateLimit({ name: "report", limit: 2, window: 60 }), (request, response) => response.send("Done\n"));

// It serves before it has found Redis, and keeps trying to connect.
app.listen(process.env.PORT ?? 3000, "127.0.0.1");
redis.connect().catch((error) => console.error(`Redis: ${error.message}`));
