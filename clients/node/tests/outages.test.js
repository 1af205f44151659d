// While Redis is away, hangs, or cannot serve: no call hangs, and each gets what `fail` says.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Limiter } from "redis-ratelimit";
import { CLIENTS, Server, until } from "./servers.js";

function each(name, run) {
  for (const [client, connect] of Object.entries(CLIENTS)) {
    test(`${name} (${client})`, async (t) => {
      const server = await Server.start({ module: true });
      t.after(() => server.close());
      await run(t, await connect(t, server), server);
    });
  }
}

each("a server that stops answering", async (t, client, server) => {
  const logged = [];
  const limiter = new Limiter(client, { timeout: 100, pause: 300, log: (text) => logged.push(text) });
  await limiter.hit("k", "5/minute");
  server.signal("SIGSTOP");
  t.after(() => server.signal("SIGCONT"));
  const before = performance.now();
  const answers = await Promise.all(Array.from({ length: 20 }, () => limiter.hit("k", "5/minute")));
  assert.ok(answers.every(({ allowed, source }) => allowed && source === "open"));
  assert.ok(performance.now() - before < 5_000, "it hung");
  // From now on nobody waits.
  const later = performance.now();
  for (let hit = 0; hit < 1_000; hit++) assert.equal((await limiter.hit("k", "5/minute")).source, "open");
  assert.ok(performance.now() - later < 5_000, "each waited");
  assert.equal(logged.length, 1);
  assert.match(logged[0], /Redis is away \(no answer in 100 ms\), limits fail open/);
  server.signal("SIGCONT");
  await until(async () => (await limiter.hit("other", "1000000/minute")).source === "redis");
  assert.equal(logged.length, 2);
  assert.match(logged[1], /answers again/);
});

each("a server that dies and comes back", async (t, client, server) => {
  const options = { timeout: 100, pause: 50, log() {} };
  const open = new Limiter(client, options);
  const closed = new Limiter(client, { ...options, fail: "closed" });
  const local = new Limiter(client, { ...options, fail: "local", localShare: 0.5 });
  for (const limiter of [open, closed, local]) await limiter.hit("before", "5/minute");
  await server.kill();
  const refused = await closed.hit("k", "5/minute;50/hour", { tiers: true });
  assert.deepEqual([refused.allowed, refused.source, refused.tiers.length], [false, "closed", 2]);
  assert.ok(refused.retryAfter > 0 && refused.retryAfter <= 50);
  assert.equal((await open.hit("k", "5/minute", { cost: 2 })).remaining, 3);
  assert.equal(await open.refund("k"), 0);
  const answers = [];
  for (let hit = 0; hit < 4; hit++) answers.push(await local.hit("k", "5/minute"));
  assert.deepEqual(answers.map(({ allowed, limit, remaining }) => [allowed, limit, remaining]), [[true, 2, 1], [true, 2, 0], [false, 2, 0], [false, 2, 0]]);
  assert.equal(await local.refund("k"), 1);
  assert.ok((await local.hit("k", "5/minute")).allowed);
  await assert.rejects(local.reset("k"));
  await server.restart();
  for (const limiter of [open, closed, local]) {
    await until(async () => (await limiter.peek("k", "5/minute")).source === "redis");
    const { source, remaining } = await limiter.hit("k", "1000/minute");
    assert.ok(source === "redis" && remaining >= 990, "hits of the outage are not counted");
  }
});

each("a server that cannot serve", async (t, client, server) => {
  const limiter = new Limiter(client, { timeout: 5_000, pause: 0, log() {} });
  await limiter.hit("k", "500/minute");
  for (const [set, back] of [
    [["CONFIG", "SET", "maxmemory", 1], ["CONFIG", "SET", "maxmemory", 0]],
    [["REPLICAOF", "127.0.0.1", 1], ["REPLICAOF", "NO", "ONE"]],
    [["CONFIG", "SET", "min-replicas-to-write", 1], ["CONFIG", "SET", "min-replicas-to-write", 0]],
  ]) {
    server.cli(...set);
    assert.equal((await limiter.hit("k", "500/minute")).source, "open", set.join(" "));
    server.cli(...back);
    assert.equal((await limiter.hit("k", "500/minute")).source, "redis", back.join(" "));
  }
});

test("a client that is not connected is a mistake (node-redis)", async (t) => {
  const server = await Server.start({ module: true });
  t.after(() => server.close());
  const client = await CLIENTS["node-redis"](t, server);
  client.destroy();
  await assert.rejects(new Limiter(client).hit("k", "1/s"), /closed/);
});

each("those who wait", async (t, client, server) => {
  const limiter = new Limiter(client, { timeout: 100, log() {} });
  t.after(() => limiter.close());
  await limiter.hit("k", "1/minute");
  const waiting = limiter.hit("k", "1/minute", { wait: 100_000 });
  await until(async () => /clients_waiting:1/.test(server.cli("INFO", "ratelimit")));
  await server.kill();
  assert.equal((await waiting).source, "open");
  await sleep(0);
});
