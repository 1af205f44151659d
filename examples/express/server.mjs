// Express, with limits by address: PORT=3000 node server.mjs
//
// Behind a proxy, set TRUST_PROXY to the proxies that may name the client's address, such as "loopback" (see "trust
// proxy" in Express). Without it all clients have the proxy's address and share one limit.

import express from "express";
import { createClient } from "redis";
import { Limiter } from "redis-ratelimit";
import { rateLimit } from "redis-ratelimit/express";

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
// No command waits while the server is away, and few wait for one that has stopped answering.
const redis = createClient({ url, disableOfflineQueue: true, commandsQueueMaxLength: 1000 });
redis.on("error", (error) => console.error(`Redis: ${error.message}`));

// Without Redis, requests pass, and none waits longer than the time-out of 100 ms. To refuse them: fail: "closed".
const limiter = new Limiter(redis, { fail: "open" });

const app = express();
if (process.env.TRUST_PROXY) app.set("trust proxy", process.env.TRUST_PROXY);
app.use(rateLimit(limiter, { limits: "5/10s" }));
app.get("/", (request, response) => response.send("Hello\n"));
app.get("/report", rateLimit(limiter, { name: "report", limits: "2/minute" }), (request, response) => response.send("Done\n"));

// It serves before it has found Redis, and keeps trying to connect.
app.listen(process.env.PORT ?? 3000, "127.0.0.1");
redis.connect().catch((error) => console.error(`Redis: ${error.message}`));
