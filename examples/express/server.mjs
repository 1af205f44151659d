// Express, with a limit by address: PORT=3000 node server.mjs

import express from "express";
import { createClient } from "redis";

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
// Without a queue for commands, a request need not wait for a server that is away.
const redis = createClient({ url, disableOfflineQueue: true });
redis.on("error", (error) => console.error(`Redis: ${error.message}`));
await redis.connect();

/** Middleware that admits `limit` requests in any `window` seconds, and tells the client where it stands. */
function rateLimit({ limit, window, by = (request) => request.ip }) {
  return async (request, response, next) => {
    let reply;
    try {
      reply = await redis.sendCommand(["RATELIMIT.HIT", `rl:${by(request)}`, `${limit}`, `${window}`]);
    } catch {
      return next(); // A limiter that is out of order stops nobody here. Where it should: response.sendStatus(503).
    }
    const [allowed, , remaining, retryAfter, , nextAfter] = reply;
    response.set("RateLimit-Policy", `"default";q=${limit};w=${window}`);
    response.set("RateLimit", `"default";r=${remaining};t=${Math.ceil(nextAfter / 1000)}`);
    if (allowed) return next();
    if (retryAfter > 0) response.set("Retry-After", `${Math.ceil(retryAfter / 1000)}`);
    response.status(429).type("application/problem+json").send({ title: "Too Many Requests", status: 429 });
  };
}

const app = express();
app.use(rateLimit({ limit: 5, window: 10 }));
app.get("/", (request, response) => response.send("Hello\n"));
app.listen(process.env.PORT ?? 3000, "127.0.0.1");
