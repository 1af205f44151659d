// What a limiter does beside deciding: answers and headers, the cache of refusals, waiting, changes of the engine.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClientPool } from "redis";
import { Limiter, UnsupportedError } from "redis-ratelimit";
import { CLIENTS, CLUSTER_CLIENTS, Server, startCluster, until } from "./servers.js";

const calls = (server, name) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`, "i").exec(server.cli("INFO", "commandstats"))?.[1] ?? 0);

/** Once for each client and engine. */
function each(name, run, engines = ["module", "script"]) {
  for (const engine of engines) {
    for (const [client, connect] of Object.entries(CLIENTS)) {
      test(`${name} (${engine}, ${client})`, async (t) => {
        const server = await Server.start({ module: engine === "module" });
        t.after(() => server.close());
        await run(t, await connect(t, server), server, engine);
      });
    }
  }
}

each("answers and headers", async (t, client, server, engine) => {
  const limiter = new Limiter(client, { prefix: "app:", timeout: 5_000 });
  assert.equal(limiter.engine, "auto");
  const answer = await limiter.hit("user", "2/minute");
  assert.equal(limiter.engine, engine);
  assert.deepEqual(
    [answer.allowed, answer.limit, answer.remaining, answer.retryAfter, answer.resetAfter, answer.nextAfter, answer.source],
    [true, 2, 1, 0, 60_000, 60_000, "redis"],
  );
  assert.deepEqual(answer.headers(), { "RateLimit-Policy": '"default";q=2;w=60', RateLimit: '"default";r=1;t=60' });
  const key = engine === "module" ? "app:user" : "app:user:ratelimit";
  assert.equal(server.cli("EXISTS", key), "1");

  const tiers = await limiter.hit("user", "2/minute;1000/h", { tiers: true });
  assert.match(tiers.headers({ name: "api" }).RateLimit, /^"2\/1m";r=0;t=\d+, "1000\/1h";r=998;t=\d+$/);
  const refused = await limiter.hit("user", "2/minute;1000/h");
  assert.ok(!refused.allowed && refused.retryAfter > 59_000 && refused.retryAfter <= 60_000);
  const headers = refused.headers({ legacy: true });
  assert.equal(headers["RateLimit-Policy"], '"2/1m";q=2;w=60, "1000/1h";q=1000;w=3600');
  assert.equal(headers["Retry-After"], "60");
  assert.equal(headers["X-RateLimit-Remaining"], "0");
  assert.ok(Math.abs(headers["X-RateLimit-Reset"] - Date.now() / 1000 - 60) < 3);
  const never = await limiter.hit("user", "2/minute", { cost: 3 });
  assert.equal(never.retryAfter, null);
  assert.equal("Retry-After" in never.headers(), false);

  assert.equal(await limiter.refund("user"), 1);
  assert.equal((await limiter.peek("user", "2/minute", { cost: 0 })).remaining, 1);
  assert.equal(await limiter.reset("user", "nobody"), 1);
  assert.equal((await limiter.peek("user", "2/minute", { cost: 0 })).remaining, 2);
  assert.equal(await limiter.refund("user"), 0);
});

each("wrong arguments", async (t, client, server) => {
  const limiter = new Limiter(client);
  await assert.rejects(limiter.hit("k", "1/fortnight"), RangeError);
  await assert.rejects(limiter.hit(5, "1/s"), TypeError);
  await assert.rejects(limiter.hit("k", "1/s", { cost: 0 }), RangeError);
  await assert.rejects(limiter.hit("k", "1/s", { cost: "1" }), TypeError);
  await assert.rejects(limiter.hit("k", "1/s", { strict: true, force: true }), RangeError);
  await assert.rejects(limiter.hit("k", "1/s", { strict: true, wait: 5 }), RangeError);
  await assert.rejects(limiter.hit("k", "1/s", { wait: 0 }), RangeError);
  await assert.rejects(limiter.hitMany([]), RangeError);
  await assert.rejects(limiter.refund("k", 0), RangeError);
  assert.equal(server.cli("DBSIZE"), "0");
  assert.throws(() => new Limiter({}), TypeError);
  for (const options of [{ engine: "lua" }, { fail: "no" }, { localShare: 0 }, { timeout: 0 }, { maxKeys: 0 }]) {
    assert.throws(() => new Limiter(client, options), RangeError);
  }
});

each("the largest numbers", async (t, client, server) => {
  // ioredis reads numbers above 2^53 - 48 wrong by one or more, and has this option for the whole client.
  const isIoredis = t.name.includes("ioredis");
  const limiter = new Limiter(isIoredis ? await CLIENTS.ioredis(t, server, { stringNumbers: true }) : client, { timeout: 5_000 });
  const answer = await limiter.hit("k", { units: Number.MAX_SAFE_INTEGER, window: 60_000 }, { cost: 2 });
  assert.deepEqual([answer.limit, answer.remaining], [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 2]);
  assert.equal(await limiter.refund("k", Number.MAX_SAFE_INTEGER), 2);
});

each("refusals are remembered", async (t, client, server, engine) => {
  const name = engine === "module" ? "ratelimit.hit" : "evalsha";
  const limiter = new Limiter(client, { refusalCache: 60_000, timeout: 5_000 });
  await limiter.hit("k", "1/minute");
  const refused = await limiter.hit("k", "1/minute");
  const before = calls(server, name);
  await sleep(5);
  const again = await limiter.hit("k", "1/minute");
  assert.deepEqual([again.allowed, again.source], [false, "cache"]);
  assert.ok(again.retryAfter < refused.retryAfter && again.retryAfter > refused.retryAfter - 5_000);
  assert.equal(calls(server, name), before);
  for (const [limits, options] of [["2/minute"], ["1/minute", { cost: 2 }], ["1/minute", { strict: true }], ["1/minute", { force: true }]]) {
    assert.equal((await limiter.hit("k", limits, options)).source, "redis", `${limits}`);
  }
  assert.equal((await limiter.peek("k", "1/minute")).source, "redis");
  await limiter.hit("k", "1/minute");
  await limiter.reset("k");
  assert.ok((await limiter.hit("k", "1/minute")).allowed);

  const off = new Limiter(client, { refusalCache: 0, timeout: 5_000 });
  for (let hit = 0; hit < 3; hit++) assert.equal((await off.hit("off", "1/minute")).source, "redis");
  const short = new Limiter(client, { refusalCache: 60_000, timeout: 5_000 });
  await short.hit("short", "1/50ms");
  await short.hit("short", "1/50ms");
  await sleep(60);
  assert.ok((await short.hit("short", "1/50ms")).allowed, "it ends with the wait");
  const small = new Limiter(client, { refusalCache: 60_000, maxKeys: 2, timeout: 5_000 });
  for (const key of ["a", "b", "c"]) await small.hit(key, "0/minute");
  assert.deepEqual(await Promise.all(["a", "b", "c"].map(async (key) => (await small.peek(key, "0/minute")).source)), Array(3).fill("redis"));
  assert.equal((await small.hit("a", "0/minute")).source, "redis");
  assert.equal((await small.hit("c", "0/minute")).source, "cache");
});

each("waits for its turn", async (t, client, server) => {
  const limiter = new Limiter(client, { timeout: 5_000 });
  t.after(() => limiter.close());
  await limiter.hit("k", "1/200ms");
  const order = [];
  const waiting = [];
  const inLine = () => Number(/clients_waiting:(\d+)/.exec(server.cli("INFO", "ratelimit"))[1]);
  for (const nth of [1, 2, 3]) {
    const hit = limiter.hit("k", "1/200ms", { wait: 10_000 });
    waiting.push(hit.then(({ allowed }) => order.push(nth) && allowed));
    await until(async () => inLine() + order.length === nth);
  }
  // Others are not kept waiting by those who wait.
  const before = performance.now();
  assert.ok((await limiter.hit("other", "10/s")).allowed);
  assert.ok(order.length < 3 && performance.now() - before < 5_000, "it was kept waiting");
  assert.deepEqual(await Promise.all(waiting), [true, true, true]);
  assert.deepEqual(order, [1, 2, 3]);
  const vain = performance.now();
  const refused = await limiter.hit("k", "1/minute", { wait: 1_000 });
  assert.ok(!refused.allowed && refused.retryAfter > 30_000 && performance.now() - vain < 900, "nobody waits in vain");
}, ["module"]);

each("no waiting without the module", async (t, client) => {
  await assert.rejects(new Limiter(client).hit("k", "1/s", { wait: 5 }), UnsupportedError);
}, ["script"]);

each("mistakes are thrown", async (t, client, server, engine) => {
  const logged = [];
  const limiter = new Limiter(client, { log: (text) => logged.push(text) });
  server.cli("SET", engine === "module" ? "k" : "k:ratelimit", "text");
  await assert.rejects(limiter.hit("k", "1/s"), /WRONGTYPE/);
  server.cli("ACL", "SETUSER", "default", "-@all", "+ping", "+acl");
  await assert.rejects(limiter.hit("other", "1/s"), /NOPERM/);
  server.cli("ACL", "SETUSER", "default", "+@all");
  assert.deepEqual(logged, []);
});

for (const [name, connect] of Object.entries(CLIENTS)) {
  test(`a server that gains the module, or loses it (${name})`, async (t) => {
    const server = await Server.start({ options: ["--enable-module-command", "yes"] });
    t.after(() => server.close());
    const limiter = new Limiter(await connect(t, server), { timeout: 5_000 });
    await limiter.hit("k", "5/minute");
    assert.equal(limiter.engine, "script");
    server.cli("MODULE", "LOAD", `${process.env.REPOSITORY}/target/release/libratelimit.so`);
    assert.equal((await limiter.hit("k", "5/minute")).remaining, 3, "its engine is known");
    server.cli("SCRIPT", "FLUSH");
    assert.equal((await limiter.hit("k", "5/minute")).remaining, 4, "the other engine has a log of its own");
    assert.equal(limiter.engine, "module");
    await assert.rejects(new Limiter(await connect(t, await bare(t)), { engine: "module" }).hit("k", "1/s"), /unknown command/);
  });

  test(`a cluster (${name})`, async (t) => {
    for (const module of [true, false]) {
      const nodes = await startCluster(t, { module });
      for (const options of [{}, { enableAutoPipelining: true, keyPrefix: "app:" }]) {
        if (name === "node-redis" && options.keyPrefix) continue;
        const limiter = new Limiter(await CLUSTER_CLIENTS[name](t, nodes, options), { timeout: 5_000, prefix: `${module}` });
        t.after(() => limiter.close());
        const users = Array.from({ length: 50 }, (_, nth) => `user:${nth}`);
        const answers = await Promise.all(users.map((user) => limiter.hit(user, "2/minute")));
        assert.ok(answers.every((answer) => answer.allowed && answer.remaining === 1));
        assert.equal(limiter.engine, module ? "module" : "script");
        const pair = ["{t}rpm", "{t}tpm"].map((key) => ({ key, limits: "2/minute", cost: 2 }));
        assert.deepEqual((await limiter.hitMany(pair)).map(({ allowed }) => allowed), [true, true]);
        assert.equal(await limiter.refund("{t}rpm", 5), 2);
        assert.equal(await limiter.reset("{t}rpm", "{t}tpm"), 1);
        if (module) assert.ok((await limiter.hit("user:7", "2/minute", { wait: 1_000 })).allowed);
      }
      const keys = nodes.reduce((sum, node) => sum + Number(node.cli("DBSIZE")), 0);
      assert.equal(keys, name === "ioredis" ? 100 : 50);
      const found = nodes.map((node) => node.cli("KEYS", "app:*")).join("").length > 0;
      assert.equal(found, name === "ioredis");
    }
  });
}

test("a prefix of ioredis", async (t) => {
  const server = await Server.start({ module: true });
  t.after(() => server.close());
  const client = await CLIENTS.ioredis(t, server, { keyPrefix: "app:", enableAutoPipelining: true });
  const limiter = new Limiter(client, { prefix: "rl:" });
  await Promise.all([limiter.hit("a", "5/s"), limiter.hit(Buffer.from("b"), "5/s"), limiter.hit("a", "5/s")]);
  await limiter.hitMany([{ key: "c", limits: "5/s" }, { key: "d", limits: "5/s" }]);
  assert.deepEqual(server.cli("KEYS", "*").split("\n").sort(), ["app:rl:a", "app:rl:b", "app:rl:c", "app:rl:d"]);
  assert.equal(server.cli("XLEN", "app:rl:a"), "2");
});

async function bare(t) {
  const server = await Server.start();
  t.after(() => server.close());
  return server;
}

test("a pool of node-redis", async (t) => {
  const server = await Server.start({ module: true });
  t.after(() => server.close());
  const pool = createClientPool({ url: server.url });
  pool.on("error", () => {});
  await pool.connect();
  t.after(() => pool.destroy());
  for (const engine of ["module", "script"]) {
    const limiter = new Limiter(pool, { engine, timeout: 5_000 });
    const answers = await Promise.all(Array.from({ length: 6 }, () => limiter.hit("k", "2/minute")));
    assert.deepEqual(answers.map(({ allowed, source }) => [allowed, source]).sort(), [...Array(4).fill([false, "redis"]), ...Array(2).fill([true, "redis"])]);
    assert.equal(await limiter.refund("k", 2), 2);
  }
  const waits = new Limiter(pool, { timeout: 5_000 });
  await waits.hit("w", "1/100ms");
  assert.ok((await waits.hit("w", "1/100ms", { wait: 5_000 })).allowed);
  waits.close();
});
