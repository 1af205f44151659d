// The programs of the README run, and print what it shows.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import test from "node:test";
import { promisify } from "node:util";

import { Server } from "./servers.js";

const README = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const block = (language) => new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, "m").exec(README)[1];
const LIMITER = `
import { createClient } from "redis";
import { Limiter } from "redis-ratelimit";
const limiter = new Limiter(await createClient({ url: "redis://127.0.0.1:6379" }).connect(), { timeout: 5000 });
`;
const ASK = `
const answer = await fetch(\`http://127.0.0.1:\${server.address().port}/\`);
console.log(answer.status, answer.headers.get("RateLimit-Policy") ?? answer.headers.get("X-RateLimit-Limit"));
process.exit();
`;
const LISTEN = `
app.get("/", (request, response) => response.send("done"));
const server = await new Promise((resolve) => { const server = app.listen(0, "127.0.0.1", () => resolve(server)); });
`;
const FASTIFY = `
fastify.get("/", async () => "done");
await fastify.listen({ port: 0, host: "127.0.0.1" });
const { server } = fastify;
`;

for (const [name, program, expected] of [
  ["the first program", block("js"), block("text")],
  ["Express", LIMITER + block("js express") + LISTEN + ASK, '200 "default";q=100;w=60\n'],
  ["Fastify", LIMITER + block("js fastify") + FASTIFY + ASK, '200 "default";q=100;w=60\n'],
  ["express-rate-limit", `${LIMITER}import express from "express"; const app = express();\n${block("js store")}${LISTEN}${ASK}`, "200 100\n"],
]) {
  test(`README: ${name}`, async (t) => {
    const server = await Server.start({ module: true });
    t.after(() => server.close());
    const words = ["--input-type=module", "-e", program.replaceAll("6379", `${server.port}`)];
    const { stdout } = await promisify(execFile)("node", words, { cwd: new URL("..", import.meta.url), timeout: 60_000 });
    assert.equal(stdout, expected);
  });
}
