// How commands are sent through node-redis and ioredis, which are told apart by what they can do.

import { DIGEST, SCRIPT } from "./call.js";

/**
 * A client of node-redis (single, cluster, sentinel or pool) or of ioredis (single or cluster).
 * @typedef {any} Client
 * @typedef {import("./call.js").Key} Key
 *
 * `module` sends a command of the module, `script` runs the script (`whole` sends its text, so that the server knows it from
 * then on), `unlink` deletes keys. `spare` is another connection, for calls that block.
 * @typedef {{
 *   module: (name: string, keys: Key[], words: string[], timeout: number) => Promise<any>,
 *   script: (keys: Key[], words: string[], whole: boolean, timeout: number) => Promise<any>,
 *   unlink: (keys: Key[], timeout: number) => Promise<any>,
 *   spare: () => Sender,
 *   close: () => void,
 * }} Sender
 */

/**
 * @param {Client} client
 * @returns {Sender}
 */
export function senderFor(client) {
  if (typeof client?.defineCommand === "function" && typeof client.call === "function") return ioredis(client);
  if (typeof client?.sendCommand === "function") return nodeRedis(client);
  throw new TypeError("the client must be one of node-redis or of ioredis");
}

/** Integers as text: as numbers, node-redis may read those above 2^53 - 48 wrong by one. 58 is `:`, the type in the protocol. */
const EXACT = { 58: String };

/**
 * @param {Client} client
 * @returns {Sender}
 */
function nodeRedis(client) {
  const isCluster = "masters" in client;
  const isSentinel = "getSentinelNode" in client;
  /** @param {Key[]} keys @param {(string | Buffer)[]} words @param {number} timeout */
  const send = (keys, words, timeout) => {
    // This time-out is for what could not be written. The limiter has one of its own.
    const options = { typeMapping: EXACT, timeout };
    if (isCluster) return client.sendCommand(keys[0], false, words, options);
    return isSentinel ? client.sendCommand(false, words, options) : client.sendCommand(words, options);
  };
  return {
    module: (name, keys, words, timeout) => send(keys, [name, ...counted(name, keys), ...keys, ...words], timeout),
    script: (keys, words, whole, timeout) =>
      send(keys, [...(whole ? ["EVAL", SCRIPT] : ["EVALSHA", DIGEST]), `${keys.length}`, ...keys, ...words], timeout),
    unlink: (keys, timeout) => send(keys, ["UNLINK", ...keys], timeout),
    spare() {
      // A pool takes another connection by itself.
      if (typeof client.duplicate !== "function") return { ...this, close() {} };
      const other = client.duplicate();
      // Errors are what its calls get.
      other.on("error", () => {});
      const connected = other.connect();
      connected.catch(() => {});
      const sender = nodeRedis(other);
      return { ...sender, module: (...call) => connected.then(() => sender.module(...call)) };
    },
    close: () => void client.destroy(),
  };
}

// In a cluster, ioredis finds the keys of scripts that it was told of, and of no unknown command. So a script passes the command
// on. It cannot wait.
const PASS_ON = `
local words = { ARGV[1] }
if ARGV[1] == 'RATELIMIT.MHIT' then words[2] = #KEYS end
for i = 1, #KEYS do words[#words + 1] = KEYS[i] end
for i = 2, #ARGV do words[#words + 1] = ARGV[i] end
return redis.call(unpack(words))`;

/**
 * @param {Client} client
 * @returns {Sender}
 */
function ioredis(client) {
  const isCluster = client.isCluster === true;
  const prefix = Buffer.from(client.options.keyPrefix ?? "");
  /** @param {Key} key */
  const prefixed = (key) => (prefix.length === 0 ? key : Buffer.concat([prefix, Buffer.from(key)]));
  /**
   * One with a fixed number of keys, because with auto-pipelining the first argument must be a key.
   * @param {string} name @param {string} lua @param {Key[]} keys @param {string[]} words
   */
  const defined = (name, lua, keys, words) => {
    const command = `${name}${keys.length}`;
    if (client[command] === undefined) client.defineCommand(command, { lua, numberOfKeys: keys.length });
    return client[command](...keys, ...words);
  };
  /** @param {string} name @param {Key[]} keys @param {string[]} words */
  const call = (name, keys, words) => client.call(name, ...counted(name, keys), ...keys.map(prefixed), ...words);
  return {
    module: (name, keys, words) =>
      isCluster && !words.includes("WAIT") ? defined("ratelimitPassOn", PASS_ON, keys, [name, ...words]) : call(name, keys, words),
    script(keys, words, isWhole) {
      if (isCluster) return defined("ratelimitScript", SCRIPT, keys, words);
      return isWhole
        ? client.eval(SCRIPT, keys.length, ...keys, ...words)
        : client.evalsha(DIGEST, keys.length, ...keys, ...words);
    },
    unlink: (keys) => client.unlink(...keys),
    spare() {
      // A call whose connection is lost fails, and is not sent again.
      const single = { maxRetriesPerRequest: 0, lazyConnect: false };
      const other = isCluster
        ? client.duplicate([], { enableAutoPipelining: false, redisOptions: { ...client.options.redisOptions, ...single } })
        : client.duplicate({ enableAutoPipelining: false, ...single });
      other.on("error", () => {});
      return ioredis(other);
    },
    close: () => void client.disconnect(),
  };
}

/**
 * @param {string} name
 * @param {Key[]} keys
 */
function counted(name, keys) {
  return name === "RATELIMIT.MHIT" ? [`${keys.length}`] : [];
}
