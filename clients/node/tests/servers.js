// Real servers for tests: each on a port and in a folder of its own, killed at the end.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Cluster, Redis } from "ioredis";
import { createClient, createCluster } from "redis";

const ROOT = process.env.REPOSITORY;
const MODULE = join(ROOT, "target/release/libratelimit.so");
const [FAKETIME] = execFileSync("find", ["/usr/lib", "-name", "libfaketime.so.1"], { encoding: "utf8" }).split("\n");
export const START = 1_767_225_600_000; // milliseconds of a day on which nothing happened

/** What a server calls itself: `Valkey 9.1.2`. */
function labelOf(program) {
  const [kind, , version] = execFileSync(program, ["--version"], { encoding: "utf8" }).split(" ");
  return `${kind} ${version.replace("v=", "")}`;
}

/** The one in PATH, and those in target/servers, each version once. RATELIMIT_SERVER names another one instead. */
export function programs() {
  const own = process.env.RATELIMIT_SERVER;
  const found = own ? "" : execFileSync("find", [`${ROOT}/target/servers/`, "-type", "f", "-perm", "-u+x", "-name", "*-server"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const all = [own ?? "redis-server", ...found.split("\n").filter((path) => /\/(redis|valkey)-server$/.test(path)).sort()];
  return [...new Map(all.reverse().map((program) => [labelOf(program), program]))].reverse();
}

export async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve) => {
      const server = createServer().listen(0, "127.0.0.1", () => resolve(server));
    })),
  );
  return servers.map((server) => {
    const { port } = server.address();
    server.close();
    return port;
  });
}

/** `module` loads the module; `clock` gives it a clock that stands still until `setClock`. */
export class Server {
  #process;
  #folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "ratelimit-"));
  #arguments;
  #program;
  #environment = process.env;

  static async start({ program = "redis-server", module = false, clock = false, options = [] } = {}) {
    const server = new Server();
    [server.port] = await freePorts(1);
    server.url = `redis://127.0.0.1:${server.port}`;
    server.#program = program;
    server.#arguments = ["--port", server.port, "--bind", "127.0.0.1", "--save", "", "--logfile", "log", ...options];
    if (module) server.#arguments.push("--loadmodule", MODULE);
    if (clock) {
      server.setClock(START);
      server.#environment = {
        ...process.env,
        LD_PRELOAD: `${FAKETIME} libc.so.6`,
        FAKETIME_TIMESTAMP_FILE: join(server.#folder, "clock"),
        FAKETIME_FMT: "%s",
        TZ: "UTC",
        FAKETIME_DONT_FAKE_MONOTONIC: "1",
        FAKETIME_NO_CACHE: "1",
      };
    }
    await server.restart();
    return server;
  }

  async restart() {
    const [program, words, cwd, env] = [this.#program, this.#arguments, this.#folder, this.#environment];
    this.#process = spawn(program, words.map(String), { cwd, env, stdio: "ignore" });
    await until(() => this.ping(), () => readFileSync(join(cwd, "log"), "utf8"));
  }

  async ping() {
    try {
      return execFileSync("redis-cli", ["-p", this.port, "PING"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }) === "PONG\n";
    } catch {
      return false;
    }
  }

  cli(...words) {
    return execFileSync("redis-cli", ["-p", this.port, ...words].map(String), { encoding: "utf8" }).trim();
  }

  /** Half a millisecond is added because libfaketime reads a floating-point number. */
  setClock(milliseconds) {
    const following = join(this.#folder, "clock.next");
    writeFileSync(following, `${Math.floor(milliseconds / 1000)}.${String(milliseconds % 1000).padStart(3, "0")}5`);
    renameSync(following, join(this.#folder, "clock"));
  }

  signal(name) {
    this.#process.kill(name);
  }

  async kill() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await gone;
  }

  async close() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Whether each command sees the clock that was set before. (Valkey 9.1 reads the processor's most of the time.) */
export async function seesClock(server, client) {
  const time = () => (client.call ? client.call("TIME") : client.sendCommand(["TIME"]));
  let sees = true;
  for (let now = START; now < START + 1_000; now += 50) {
    server.setClock(now);
    const [seconds, microseconds] = await time();
    sees &&= Number(seconds) * 1_000 + Math.floor(microseconds / 1_000) === now;
  }
  server.setClock(START);
  return sees;
}

/** Three primaries with the module, or without. Returns them. */
export async function startCluster(t, settings) {
  const nodes = [];
  for (const last of [5_460, 10_922, 16_383]) {
    const [bus] = await freePorts(1);
    const first = [0, 5_461, 10_923][nodes.length];
    const options = ["--cluster-enabled", "yes", "--cluster-port", bus];
    const node = await Server.start({ ...settings, options });
    t.after(() => node.close());
    node.cli("CLUSTER", "SET-CONFIG-EPOCH", nodes.length + 1);
    node.cli("CLUSTER", "ADDSLOTSRANGE", first, last);
    if (nodes.length > 0) node.cli("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus);
    nodes.push(Object.assign(node, { bus }));
  }
  const isWhole = (node) => /cluster_state:ok[^]*cluster_slots_ok:16384[^]*cluster_size:3/.test(node.cli("CLUSTER", "INFO"));
  await until(async () => nodes.every(isWhole), () => nodes.map((node) => node.cli("CLUSTER", "NODES")).join("\n"));
  return nodes;
}

/** Tries until it is true. */
export async function until(isTrue, explain = () => "it takes too long") {
  for (const end = Date.now() + 20_000; !(await isTrue()); await sleep(5)) {
    if (Date.now() > end) throw new Error(explain());
  }
}

/** Connected clients of one server, of both kinds. */
export const CLIENTS = {
  async "node-redis"(t, { url }, options = {}) {
    const client = createClient({ url, ...options });
    client.on("error", () => {});
    await client.connect();
    t.after(() => client.isOpen && client.destroy());
    return client;
  },
  async ioredis(t, { port }, options = {}) {
    const client = new Redis(port, "127.0.0.1", options);
    client.on("error", () => {});
    await client.ping();
    t.after(() => client.disconnect());
    return client;
  },
};

/** The same for a cluster. */
export const CLUSTER_CLIENTS = {
  async "node-redis"(t, [{ url }]) {
    const cluster = createCluster({ rootNodes: [{ url }] });
    cluster.on("error", () => {});
    await cluster.connect();
    t.after(() => cluster.destroy());
    return cluster;
  },
  async ioredis(t, [{ port }], options = {}) {
    const cluster = new Cluster([{ host: "127.0.0.1", port }], options);
    cluster.on("error", () => {});
    await cluster.ping();
    t.after(() => cluster.disconnect());
    return cluster;
  },
};
