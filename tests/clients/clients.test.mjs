// Every command through node-redis and ioredis. PORT names a server, CLUSTER_PORT a node of a cluster of three primaries,
// CLUSTER_PAGE the page on clusters.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";

import Redis from "ioredis";
import { createClient, createCluster, RESP_TYPES } from "redis";

const port = Number(process.env.PORT);
const clusterPort = Number(process.env.CLUSTER_PORT);
const nodeRedis = await createClient({ socket: { port } }).connect();
const ioredis = new Redis(port);
after(() => {
  nodeRedis.destroy();
  ioredis.disconnect();
});

const clients = {
  "node-redis": (...words) => nodeRedis.sendCommand(words),
  ioredis: (command, ...words) => ioredis.call(command, ...words),
};

for (const [name, call] of Object.entries(clients)) {
  test(name, async () => {
    await call("RATELIMIT.RESETSTAT");
    await call("RATELIMIT.RESET", "js:a", "js:b", "js:c");
    const fresh = [1, 2, 1, 0, 3600000, 3600000];
    assert.deepEqual(await call("RATELIMIT.PEEK", "js:a", "2", "1h"), fresh);
    assert.deepEqual(await call("RATELIMIT.HIT", "js:a", "2", "1h"), fresh);
    assert.deepEqual((await call("RATELIMIT.HIT", "js:a", "2", "1h", "5", "1d", "COST", "1")).slice(0, 4), [1, 2, 0, 0]);
    const refused = await call("RATELIMIT.HIT", "js:a", "2", "3600", "STRICT");
    assert.ok(refused[0] === 0 && refused[3] > 0);
    const none = await call("RATELIMIT.MHIT", "2", "js:a", "js:b", "2", "1h", "AND", "9", "1h");
    assert.deepEqual(none.map((row) => row[0]), [0, 0]);
    const both = await call("RATELIMIT.MHIT", "2", "js:c", "js:b", "2", "1h", "AND", "9", "1h");
    assert.deepEqual(both.map((row) => row.slice(0, 3)), [[1, 2, 1], [1, 9, 8]]);
    assert.deepEqual((await call("RATELIMIT.TOP", "COUNT", "1"))[0].slice(0, 2), ["js:a", 2]);
    assert.equal(await call("RATELIMIT.RESET", "js:a", "js:b", "js:c"), 3);
    await assert.rejects(call("RATELIMIT.HIT", "js:a", "x", "1h"), /limit is not an integer or out of range/);
  });
}

// JavaScript holds all limits exactly, but these clients add before they subtract when they read digits.
for (const [name, call] of Object.entries(clients)) {
  test(`${name}: large integers`, async () => {
    const seen = async (limit) => (await call("RATELIMIT.PEEK", "js:large", limit, "1h"))[1];
    for (const limit of [999_999_999_999_999, 1_000_000_000_000_000, 9_007_199_254_740_943, 9_007_199_254_740_944]) {
      assert.equal(await seen(`${limit}`), limit);
    }
    for (const [limit, read] of [
      ["9007199254740945", "9007199254740944"],
      ["9007199254740991", "9007199254740992"],
    ]) {
      assert.equal(`${await seen(limit)}`, read, "if this is the limit now, docs/clients.md may be shorter");
    }
  });
}

test("large integers as text", async () => {
  const call = ["RATELIMIT.PEEK", "js:large", "9007199254740991", "1h"];
  const expected = ["1", "9007199254740991", "9007199254740990", "0", "3600000", "3600000"];
  const typeMapping = { [RESP_TYPES.NUMBER]: String };
  assert.deepEqual(await nodeRedis.sendCommand(call, { typeMapping }), expected);
  const strings = new Redis(port, { stringNumbers: true });
  assert.deepEqual(await strings.call(...call), expected);
  strings.disconnect();
});

/** Keys in many slots, so that no node has all of them. */
const spread = (name) => Array.from({ length: 60 }, (_, n) => `${name}:${n}`);

async function inCluster(options, use) {
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port: clusterPort }], options);
  cluster.defineCommand("hit", {
    numberOfKeys: 1,
    lua: "return redis.call('RATELIMIT.HIT', KEYS[1], unpack(ARGV))",
  });
  await once(cluster, "ready");
  try {
    await use(cluster);
  } finally {
    cluster.disconnect();
  }
}

/** Three hits where two are allowed, on each of the keys at once. */
async function twoOfThree(name, hit) {
  for (const expected of [[1, 1], [1, 0], [0, 0]]) {
    const replies = await Promise.all(spread(name).map(hit));
    replies.forEach((reply) => assert.deepEqual([reply[0], reply[2]], expected));
  }
}

test("ioredis in a cluster: call", () =>
  inCluster({}, async (cluster) => {
    await twoOfThree("call", (key) => cluster.call("RATELIMIT.HIT", key, "2", "1h"));
    const both = await cluster.call("RATELIMIT.MHIT", "2", "{both}a", "{both}b", "2", "1h", "AND", "9", "1h");
    assert.deepEqual(both.map((row) => row.slice(0, 3)), [[1, 2, 1], [1, 9, 8]]);
    const pipeline = cluster.pipeline();
    spread("pipeline").forEach((key) => pipeline.call("RATELIMIT.HIT", key, "2", "1h"));
    const failed = (await pipeline.exec()).filter(([error]) => error);
    assert.ok(failed.length > 0 && failed.every(([error]) => /^MOVED/.test(error.message)));
    const tops = await Promise.all(cluster.nodes("master").map((node) => node.call("RATELIMIT.TOP", "COUNT", "1000")));
    assert.equal(tops.length, 3);
    assert.equal(tops.flat().filter(([name]) => name.startsWith("call:")).length, 60);
  }));

test("ioredis in a cluster: call with enableAutoPipelining", async () => {
  // A client sends all of them to nodes by chance, which may once be the right ones.
  let failed = [];
  for (let attempt = 0; attempt < 50 && failed.length === 0; attempt++) {
    await inCluster({ enableAutoPipelining: true }, async (cluster) => {
      const calls = spread("auto").map((key) => cluster.call("RATELIMIT.HIT", key, "100", "1h"));
      failed = (await Promise.allSettled(calls)).filter((call) => call.status === "rejected");
    });
  }
  assert.ok(failed.length > 0, "if ioredis has mended this, docs/cluster.md may be shorter");
  assert.ok(failed.every((call) => /^MOVED/.test(call.reason.message)));
});

test("ioredis: keyPrefix and call", async () => {
  const single = new Redis(port, { keyPrefix: "prefix:" });
  await single.call("RATELIMIT.HIT", "js:single", "2", "1h");
  assert.equal(await ioredis.exists("js:single"), 1);
  assert.equal(await ioredis.exists("prefix:js:single"), 0);
  single.disconnect();
  await inCluster({ keyPrefix: "prefix:" }, async (cluster) => {
    await cluster.call("RATELIMIT.HIT", "prefixed", "2", "1h");
    assert.equal(await cluster.exists("prefixed"), 0);
  });
});

for (const enableAutoPipelining of [false, true]) {
  test(`ioredis in a cluster: a script, enableAutoPipelining: ${enableAutoPipelining}`, () =>
    inCluster({ enableAutoPipelining, keyPrefix: "prefix:" }, async (cluster) => {
      const name = `script:${enableAutoPipelining}`;
      await twoOfThree(name, (key) => cluster.hit(key, 2, "1h"));
      assert.equal(await cluster.exists(`${name}:0`), 1, "under the prefix, which this call has as well");
      const pipeline = cluster.pipeline();
      for (let n = 0; n < 3; n++) pipeline.hit(`{${name}}`, 2, "1h");
      assert.deepEqual((await pipeline.exec()).map(([error, reply]) => error ?? reply[0]), [1, 1, 0]);
      const several = cluster.pipeline();
      spread(name).forEach((key) => several.hit(key, 2, "1h"));
      await assert.rejects(several.exec(), /All keys in the pipeline should belong to the same slots/);
    }));
}

test("node-redis in a cluster", async () => {
  const cluster = await createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${clusterPort}` }] }).connect();
  await twoOfThree("node", (key) => cluster.sendCommand(key, false, ["RATELIMIT.HIT", key, "2", "1h"]));
  const call = ["RATELIMIT.MHIT", "2", "{node}a", "{node}b", "2", "1h", "AND", "9", "1h"];
  const both = await cluster.sendCommand("{node}a", false, call);
  assert.deepEqual(both.map((row) => row.slice(0, 3)), [[1, 2, 1], [1, 9, 8]]);
  const nodes = await Promise.all(cluster.masters.map((node) => cluster.nodeClient(node)));
  const tops = await Promise.all(nodes.map((node) => node.sendCommand(["RATELIMIT.TOP", "COUNT", "1000"])));
  assert.equal(tops.length, 3);
  assert.equal(tops.flat().filter(([name]) => name.startsWith("node:")).length, 60);
  cluster.destroy();
});

test("the page on clusters", () => {
  const page = readFileSync(process.env.CLUSTER_PAGE, "utf8");
  const snippets = [...page.matchAll(/```js cluster\n(.*?)```\n\n```text\n(.*?)```/gs)];
  assert.equal(snippets.length, page.split("```js cluster").length - 1);
  assert.ok(snippets.length > 0);
  for (const [, code, output] of snippets) {
    const program = code.replaceAll("6379", `${clusterPort}`);
    assert.equal(execFileSync("node", ["--input-type=module", "-e", program], { encoding: "utf8" }), output);
  }
});
