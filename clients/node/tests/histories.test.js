// Random histories, judged by the oracle: both engines on every server through both clients, and the limits in this process.

import assert from "node:assert/strict";
import test from "node:test";

import { Limiter } from "redis-ratelimit";
import { ask, refund } from "./oracle.js";
import { CLIENTS, Server, START, programs, seesClock } from "./servers.js";

const KEYS = ["{k}a", "{k}b", Buffer.from([0x7b, 0x6b, 0x7d, 0xff, 0])];
const POLICY = [[5, 1_000], [12, 4_000]];
const HISTORIES = Number(process.env.HISTORIES ?? 12);

/** A generator of numbers below `bound`, from a seed (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

const row = (answer) => [answer.allowed, answer.limit, answer.remaining, answer.retryAfter, answer.resetAfter, answer.nextAfter];
const limits = (tiers) => tiers.map(([units, window]) => ({ units, window }));

/** One history. `setClock` sets the limiter's clock. */
async function play(limiter, seed, setClock, name) {
  const random = generator(seed);
  const logs = new Map(KEYS.map((key) => [key, []]));
  const keyOf = (key) => (Buffer.isBuffer(key) ? Buffer.concat([key, Buffer.from(`${seed}`)]) : `${key}${seed}`);
  let now = START;
  for (let step = 0; step < 60; step++) {
    now += random(3) ? random(120) : random(2_500);
    await setClock(now);
    const key = KEYS[random(KEYS.length)];
    const hits = logs.get(key);
    const cost = random(3) ? 1 : 1 + random(7);
    const modes = [{}, {}, { strict: true }, { force: true }][random(4)];
    const mode = modes.strict ? "STRICT" : modes.force ? "FORCE" : "";
    const tiers = random(2) === 1;
    const where = `${name}, seed ${seed}, step ${step}`;
    const check = (answers, expected) => {
      assert.deepEqual(answers.map(row), expected.map(({ binding }) => binding), where);
      if (tiers) assert.deepEqual(answers.map((answer) => answer.tiers.map(row)), expected.map(({ rows }) => rows), where);
    };
    switch (random(8)) {
      case 0: {
        const asked = random(2) ? cost : 0;
        const answer = await limiter.peek(keyOf(key), limits(POLICY), { cost: asked, tiers });
        check([answer], ask(now, [{ hits, tiers: POLICY, cost: asked }], { reads: true }));
        break;
      }
      case 1: {
        const longest = POLICY[1][1];
        assert.equal(await limiter.refund(keyOf(key), cost), refund(hits, now, cost, longest), where);
        break;
      }
      case 2: {
        const charged = KEYS.slice(random(2));
        const answers = await limiter.hitMany(
          charged.map((key, at) => ({ key: keyOf(key), limits: limits(POLICY), cost: cost + at })),
          { ...modes, tiers },
        );
        check(answers, ask(now, charged.map((key, at) => ({ hits: logs.get(key), tiers: POLICY, cost: cost + at })), { mode }));
        break;
      }
      default: {
        const answer = await limiter.hit(keyOf(key), limits(POLICY), { cost, ...modes, tiers });
        check([answer], ask(now, [{ hits, tiers: POLICY, cost }], { mode }));
      }
    }
  }
}

const first = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
console.log(`histories: SEED=${first}`);

for (const [label, program] of programs()) {
  for (const engine of ["module", "script"]) {
    for (const [client, connect] of Object.entries(CLIENTS)) {
      test(`${label}, ${engine}, ${client}`, async (t) => {
        const server = await Server.start({ program, module: engine === "module", clock: true });
        t.after(() => server.close());
        const connected = await connect(t, server);
        if (!(await seesClock(server, connected))) return t.skip("skipped: the clock of this server cannot be set");
        const limiter = new Limiter(connected, { engine, refusalCache: 0, timeout: 5_000 });
        for (let seed = first; seed < first + HISTORIES; seed++) {
          await play(limiter, seed, (now) => server.setClock(now), `${label}, ${engine}, ${client}`);
        }
        assert.equal(limiter.engine, engine);
      });
    }
  }
}

test("in this process", async (t) => {
  const server = await Server.start();
  t.after(() => server.close());
  const client = await CLIENTS.ioredis(t, server);
  await server.kill();
  let now = START;
  t.mock.method(performance, "now", () => now);
  const limiter = new Limiter(client, { fail: "local", refusalCache: 0, pause: 1e12, log() {} });
  assert.equal((await limiter.peek("k", "1/s")).source, "local");
  for (let seed = first; seed < first + 10 * HISTORIES; seed++) await play(limiter, seed, (to) => void (now = to), "local");
});
