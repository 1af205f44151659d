// Every command through node-redis and ioredis. PORT names a server.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import Redis from "ioredis";
import { createClient } from "redis";

const port = Number(process.env.PORT);
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
    const none = await call("RATELIMIT.MHIT", "2", "js:a", "js:b", "2", "1h", "9", "1h");
    assert.deepEqual(none.map((row) => row[0]), [0, 0]);
    const both = await call("RATELIMIT.MHIT", "2", "js:c", "js:b", "2", "1h", "9", "1h");
    assert.deepEqual(both.map((row) => row.slice(0, 3)), [[1, 2, 1], [1, 9, 8]]);
    assert.deepEqual((await call("RATELIMIT.TOP", "COUNT", "1"))[0].slice(0, 2), ["js:a", 2]);
    assert.equal(await call("RATELIMIT.RESET", "js:a", "js:b", "js:c"), 3);
    await assert.rejects(call("RATELIMIT.HIT", "js:a", "x", "1h"), /limit is not an integer or out of range/);
  });
}
