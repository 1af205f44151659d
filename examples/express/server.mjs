// Express, with limits by address: PORT=3000 node server.mjs
//
// Behind a proxy, TRUST_PROXY says which one may tell the client's address, such as "loopback" (see "trust proxy" in
// Express). Without it all clients have the proxy's address, and one limit.

import { isIPv6 } from "node:net";

import express from "express";
import { createClient, ErrorReply } from "redis";

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
// How long a request waits for a decision, in milliseconds.
const PATIENCE = 100;
// No command waits for a server that is away, and few for one that has stopped to answer.
const redis = createClient({ url, disableOfflineQueue: true, commandsQueueMaxLength: 1000 });
redis.on("error", (error) => console.error(`Redis: ${error.message}`));

// Errors by which Redis or its operator says: not now, not here. Any other is a mistake in a call, which must be seen.
const AWAY = /^(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|ERR unknown command)\b/;

/** What a promise becomes, or an error where that takes too long. (The client's own time-out ends with the sending.) */
async function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** An IPv4 address as it is, and the /64 of an IPv6 address: who has one address of it has all of them. */
function network(address) {
  if (!isIPv6(address)) return address;
  // A URL spells it in one way: `::` once at most, and no `::ffff:192.0.2.1`, which is an IPv4 address.
  const [head, tail] = new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1).split("::");
  const [left, right] = [head, tail].map((part) => (part ? part.split(":") : []));
  const groups = [...left, ...Array(8 - left.length - right.length).fill("0"), ...right];
  if (groups.slice(0, 6).join() !== "0,0,0,0,0,ffff") return `${groups.slice(0, 4).join(":")}::/64`;
  return groups.slice(6).flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]).join(".");
}

/** Middleware that admits `limit` requests in any `window` seconds, and tells the client where it stands. The name is a
 * part of the key: limits of different names do not count each other's requests. */
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
      return next(); // A limiter that is out of order stops nobody here. Where it should: response.sendStatus(503).
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

// It serves before it has found Redis, and goes on looking for it.
app.listen(process.env.PORT ?? 3000, "127.0.0.1");
redis.connect().catch((error) => console.error(`Redis: ${error.message}`));
