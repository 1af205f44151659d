// Express, Fastify and express-rate-limit, over HTTP.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import express from "express";
import { rateLimit as expressRateLimit } from "express-rate-limit";
import Fastify from "fastify";
import { Limiter } from "redis-ratelimit";
import { keyOf, rateLimit } from "redis-ratelimit/express";
import { RateLimitStore } from "redis-ratelimit/express-rate-limit";
import { rateLimit as fastifyRateLimit } from "redis-ratelimit/fastify";
import { CLIENTS, Server, until } from "./servers.js";

/** A limiter on a server of its own. */
async function setUp(t, options = {}) {
  const server = await Server.start({ module: true });
  t.after(() => server.close());
  const limiter = new Limiter(await CLIENTS["node-redis"](t, server), { timeout: 5_000, log() {}, ...options });
  return { server, limiter };
}

const plan = (request) => ({ free: "2/minute", pro: ["4/minute", "100/hour"], staff: null, wrong: "2/fortnight" })[request.headers.plan ?? "free"];
const user = (request) => request.headers.user ?? "nobody";

/** The same application on both. Each returns its address. */
const APPS = {
  async Express(t, limiter) {
    const app = express();
    app.set("trust proxy", "loopback");
    app.get("/plain", rateLimit(limiter, { limits: "2/minute" }), (request, response) => response.send("done"));
    app.get("/plan", rateLimit(limiter, { name: "plan", limits: plan, by: user }), (request, response) => response.send("done"));
    app.get("/cost", rateLimit(limiter, { name: "cost", limits: "10/minute", by: user, cost: (request) => Number(request.query.n) }),
      (request, response) => response.send("done"));
    app.get("/two", rateLimit(limiter, { name: "a", limits: "5/minute" }), rateLimit(limiter, { name: "b", limits: "1/minute", legacy: true }),
      (request, response) => response.send("done"));
    app.get("/failing", rateLimit(limiter, { name: "failing", limits: "2/minute", refundIf: (status) => status >= 400 }),
      (request, response) => response.status(Number(request.query.status)).send("done"));
    app.get("/careless", rateLimit(limiter, { name: "careless", limits: "9/minute", refundIf: (status) => status.nothing.there }),
      (request, response) => response.send("done"));
    app.get("/own", rateLimit(limiter, { name: "own", limits: "0/minute", refuse: (request, response) => response.status(420).send("calm") }));
    app.use((error, request, response, next) => response.status(500).send(error.message));
    return listening(t, app.listen(0, "127.0.0.1"));
  },
  async Fastify(t, limiter) {
    const app = Fastify({ trustProxy: "127.0.0.1" });
    const get = (path, rules, handler = async () => "done") => app.get(path, { onRequest: rules.map((rule) => fastifyRateLimit(limiter, rule)) }, handler);
    get("/plain", [{ limits: "2/minute" }]);
    get("/plan", [{ name: "plan", limits: plan, by: user }]);
    get("/cost", [{ name: "cost", limits: "10/minute", by: user, cost: (request) => Number(request.query.n) }]);
    get("/two", [{ name: "a", limits: "5/minute" }, { name: "b", limits: "1/minute", legacy: true }]);
    get("/failing", [{ name: "failing", limits: "2/minute", refundIf: (status) => status >= 400 }],
      async (request, reply) => reply.code(Number(request.query.status)).send("done"));
    get("/careless", [{ name: "careless", limits: "9/minute", refundIf: (status) => status.nothing.there }]);
    get("/own", [{ name: "own", limits: "0/minute", refuse: (request, reply) => { reply.code(420); return "calm"; } }]);
    await app.listen({ port: 0, host: "127.0.0.1" });
    return listening(t, app.server);
  },
};

async function listening(t, server) {
  if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => server.closeAllConnections() ?? server.close());
  const base = `http://127.0.0.1:${server.address().port}`;
  return (path, headers = {}) => fetch(base + path, { headers });
}

for (const [framework, serve] of Object.entries(APPS)) {
  test(`${framework}: a limit by address`, async (t) => {
    const { server, limiter } = await setUp(t);
    const get = await serve(t, limiter);
    const first = await get("/plain");
    assert.deepEqual([first.status, await first.text()], [200, "done"]);
    assert.equal(first.headers.get("RateLimit-Policy"), '"default";q=2;w=60');
    assert.equal(first.headers.get("RateLimit"), '"default";r=1;t=60');
    await get("/plain");
    const refused = await get("/plain");
    assert.equal(refused.status, 429);
    assert.match(refused.headers.get("Content-Type"), /^application\/problem\+json/);
    assert.match(refused.headers.get("Retry-After"), /^(59|60)$/);
    const problem = await refused.json();
    assert.deepEqual([problem.status, problem["violated-policies"]], [429, ["default"]]);
    assert.equal(server.cli("KEYS", "*"), keyOf("default", "127.0.0.1"));
    // One log for each IPv4 address and each /64 of IPv6.
    for (const address of ["2001:db8:1:2::5", "2001:DB8:1:2:ffff::7", "::ffff:192.0.2.1", "192.0.2.1"]) {
      assert.equal((await get("/plain", { "X-Forwarded-For": address })).status, 200, address);
    }
    assert.equal((await get("/plain", { "X-Forwarded-For": "2001:db8:1:2::9" })).status, 429);
    assert.equal((await get("/plain", { "X-Forwarded-For": "2001:db8:1:3::9" })).status, 200);
    assert.equal(server.cli("EXISTS", "rl:default:2001:db8:1:2::/64", "rl:default:192.0.2.1"), "2");
  });

  test(`${framework}: plans, costs, several limits`, async (t) => {
    const { limiter } = await setUp(t);
    const get = await serve(t, limiter);
    const statuses = async (count, path, headers) => {
      const found = [];
      for (let nth = 0; nth < count; nth++) found.push((await get(path, headers)).status);
      return found.join(" ");
    };
    assert.equal(await statuses(3, "/plan", { user: "ann" }), "200 200 429");
    assert.equal(await statuses(5, "/plan", { user: "bob", plan: "pro" }), "200 200 200 200 429");
    assert.equal(await statuses(5, "/plan", { user: "eve", plan: "staff" }), "200 200 200 200 200");
    assert.equal(await statuses(1, "/plan", { user: "max", plan: "wrong" }), "500");
    const pro = await get("/plan", { user: "carl", plan: "pro" });
    assert.equal(pro.headers.get("RateLimit-Policy"), '"4/1m";q=4;w=60, "100/1h";q=100;w=3600');
    assert.match(pro.headers.get("RateLimit"), /^"4\/1m";r=3;t=60, "100\/1h";r=99;t=3600$/);

    assert.equal(await statuses(2, "/cost?n=4", { user: "ann" }), "200 200");
    assert.equal(await statuses(2, "/cost?n=0", { user: "ann" }), "200 200");
    assert.equal(await statuses(1, "/cost?n=3", { user: "ann" }), "429");
    assert.equal(await statuses(1, "/cost?n=2", { user: "ann" }), "200");
    assert.equal(await statuses(2, "/cost?n=1.5", { user: "ann" }), "500 500");

    const two = await get("/two");
    assert.equal(two.headers.get("RateLimit-Policy"), '"a";q=5;w=60, "b";q=1;w=60');
    assert.equal(two.headers.get("X-RateLimit-Remaining"), "0");
    const second = await get("/two");
    assert.deepEqual([second.status, second.headers.get("RateLimit")?.replaceAll(/t=\d+/g, "t")], [429, '"a";r=3;t, "b";r=0;t']);
    const own = await get("/own");
    assert.deepEqual([own.status, await own.text()], [420, "calm"]);
    assert.ok(own.headers.has("RateLimit"));
  });

  test(`${framework}: failed requests do not count`, async (t) => {
    const { server, limiter } = await setUp(t);
    const get = await serve(t, limiter);
    const used = async () => 2 - (await limiter.peek(keyOf("failing", "127.0.0.1"), "2/minute", { cost: 0 })).remaining;
    for (let nth = 0; nth < 5; nth++) {
      assert.equal((await get("/failing?status=404")).status, 404);
      await until(async () => (await used()) === 0);
    }
    for (const expected of [200, 200, 429]) assert.equal((await get("/failing?status=200")).status, expected);
    // A refusal is never given back.
    await sleep(50);
    assert.equal(await used(), 2);
    assert.equal((await get("/failing?status=200")).status, 429);
    assert.match(server.cli("INFO", "commandstats"), /cmdstat_ratelimit.refund:calls=5,/);
  });

  test(`${framework}: a mistake in refundIf is told, and ends nothing`, async (t) => {
    const { limiter } = await setUp(t);
    const told = t.mock.method(console, "error", () => {});
    const get = await serve(t, limiter);
    assert.equal((await get("/careless")).status, 200);
    await until(() => told.mock.callCount() === 1);
    assert.match(told.mock.calls[0].arguments[0], /not refunded: TypeError/);
    assert.equal((await get("/careless")).status, 200);
  });

  test(`${framework}: without Redis`, async (t) => {
    for (const [fail, status] of [["open", 200], ["closed", 503], ["local", 200]]) {
      const { server, limiter } = await setUp(t, { fail, timeout: 100 });
      const get = await serve(t, limiter);
      assert.equal((await get("/plain")).status, 200);
      server.signal("SIGSTOP");
      const before = performance.now();
      const answer = await get("/plain");
      assert.equal(answer.status, status, fail);
      assert.ok(performance.now() - before < 5_000, "it hung");
      assert.equal(answer.headers.has("RateLimit"), fail === "local");
    }
  });

  test(`${framework}: a mistake lets nobody pass`, async (t) => {
    const { server, limiter } = await setUp(t);
    const get = await serve(t, limiter);
    server.cli("SET", keyOf("default", "127.0.0.1"), "text");
    const answer = await get("/plain");
    assert.equal(answer.status, 500);
    assert.match(await answer.text(), /WRONGTYPE/);
  });
}

test("wrong rules", async (t) => {
  const { limiter } = await setUp(t);
  for (const rule of [{ limits: "2/fortnight" }, { limits: "2/s", name: "a b" }, { limits: "2/s", cost: -1 }]) {
    assert.throws(() => rateLimit(limiter, rule), RangeError);
  }
  assert.throws(() => rateLimit({}, { limits: "2/s" }), TypeError);
  for (const client of [undefined, null, {}, true, NaN]) assert.throws(() => keyOf("default", client), TypeError);
  assert.match(keyOf("default", "x".repeat(500)), /^rl:default:[0-9a-f]{64}$/);
});

// What the tests of express-rate-limit and of rate-limit-redis demand of a store.

async function storeOf(t, options = {}, limits = { windowMs: 60_000, limit: 3 }) {
  const set = await setUp(t, options.limiter);
  const store = new RateLimitStore(set.limiter, options.store);
  store.init(limits);
  return { ...set, store };
}

test("store: counts from 1, and says when the window ends", async (t) => {
  const { store } = await storeOf(t);
  const before = Date.now();
  const first = await store.increment("k");
  assert.equal(first.totalHits, 1);
  assert.ok(first.resetTime instanceof Date && Math.abs(first.resetTime - before - 60_000) < 2_000);
  await sleep(20);
  const second = await store.increment("k");
  assert.equal(second.totalHits, 2);
  assert.ok(Math.abs(second.resetTime - first.resetTime) <= 10, "the end of the window stays");
  assert.equal((await store.get("k")).totalHits, 2);
  assert.equal(await store.get("nobody"), undefined);
});

test("store: above the limit by one when it refuses, and no more", async (t) => {
  const { store } = await storeOf(t);
  const totals = [];
  for (let hit = 0; hit < 6; hit++) totals.push((await store.increment("k")).totalHits);
  assert.deepEqual(totals, [1, 2, 3, 4, 4, 4]);
});

test("store: decrement gives back, and never goes below nothing", async (t) => {
  const { store } = await storeOf(t);
  await store.increment("k");
  await store.increment("k");
  await store.decrement("k");
  assert.equal((await store.increment("k")).totalHits, 2);
  for (let hit = 0; hit < 5; hit++) await store.decrement("k");
  assert.equal((await store.increment("k")).totalHits, 1);
  await store.decrement("nobody");
  assert.equal(await store.get("nobody"), undefined);
});

test("store: decrements at the same time", async (t) => {
  const { store } = await storeOf(t, {}, { windowMs: 60_000, limit: 100 });
  await Promise.all(Array.from({ length: 40 }, () => store.increment("k")));
  await Promise.all(Array.from({ length: 25 }, () => store.decrement("k")));
  assert.equal((await store.get("k")).totalHits, 15);
});

test("store: resets a key and no other", async (t) => {
  const { store } = await storeOf(t);
  for (const key of ["a", "b"]) await store.increment(key);
  await store.resetKey("a");
  assert.equal(await store.get("a"), undefined);
  assert.equal((await store.get("b")).totalHits, 1);
});

test("store: a new window", async (t) => {
  const { store } = await storeOf(t, {}, { windowMs: 80, limit: 1 });
  assert.equal((await store.increment("k")).totalHits, 1);
  await until(async () => (await store.get("k")) === undefined);
  assert.equal((await store.increment("k")).totalHits, 1);
});

test("store: prefixes", async (t) => {
  const { server, limiter, store } = await storeOf(t);
  const other = new RateLimitStore(limiter, { prefix: "other:" });
  other.init({ windowMs: 60_000, limit: 3 });
  await store.increment("k");
  assert.equal((await other.increment("k")).totalHits, 1);
  assert.deepEqual(server.cli("KEYS", "*").split("\n").sort(), ["other:k", "rl:k"]);
  assert.equal(store.localKeys, false);
});

test("store: what it cannot do", async (t) => {
  const { limiter } = await setUp(t);
  assert.throws(() => new RateLimitStore({}), TypeError);
  assert.throws(() => new RateLimitStore(limiter).init({ windowMs: 1, limit: () => 5 }), TypeError);
});

async function served(t, limiter, options) {
  const app = express();
  const store = new RateLimitStore(limiter);
  app.use(expressRateLimit({ windowMs: 60_000, limit: 2, standardHeaders: "draft-8", legacyHeaders: true, store, validate: false, ...options }));
  app.get("/:status", (request, response) => response.status(Number(request.params.status)).send("done"));
  const get = await listening(t, app.listen(0, "127.0.0.1"));
  const statuses = async (...paths) => {
    const found = [];
    for (const path of paths) {
      found.push((await get(path)).status);
      await sleep(30); // what a finished answer gives back comes after it
    }
    return found.join(" ");
  };
  return { get, statuses, store };
}

test("express-rate-limit with the store", async (t) => {
  const { limiter } = await setUp(t);
  const { get, statuses } = await served(t, limiter);
  assert.equal(await statuses("/200", "/200", "/200", "/200"), "200 200 429 429");
  const refused = await get("/200");
  assert.match(refused.headers.get("Retry-After"), /^(59|60)$/);
  assert.equal(refused.headers.get("X-RateLimit-Remaining"), "0");
});

test("express-rate-limit: skipFailedRequests at the limit", async (t) => {
  const { limiter } = await setUp(t, { refusalCache: 0 });
  const { statuses, store } = await served(t, limiter, { skipFailedRequests: true });
  assert.equal(await statuses("/404", "/404", "/404", "/200", "/200"), "404 404 404 200 200");
  // Refusals are failed requests too, but were not counted, so nothing is given back for them.
  assert.equal(await statuses("/200", "/200", "/404", "/200"), "429 429 429 429");
  assert.equal((await store.get("127.0.0.1")).totalHits, 2);
});

test("express-rate-limit: skipSuccessfulRequests", async (t) => {
  const { limiter } = await setUp(t, { refusalCache: 0 });
  const { statuses } = await served(t, limiter, { skipSuccessfulRequests: true });
  assert.equal(await statuses("/200", "/200", "/200", "/404", "/404", "/200"), "200 200 200 404 404 429");
});
