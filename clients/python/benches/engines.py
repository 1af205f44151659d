"""What a decision costs the server: microseconds of CPU of its main thread, and bytes of a key.

    python benches/engines.py [--keys 10000] [--rounds 20] [--server redis-server]

The contenders take turns in short rounds, each on a server of its own, so that a busy machine is unfair to none.
Commands come in pipelines of 50.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from redis_ratelimit import Limit  # noqa: E402
from redis_ratelimit._call import Call, Group, for_module, for_script, script  # noqa: E402
from servers import MODULE, Server, free_ports, label  # noqa: E402

SORTED_SET = """local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2] * 1000)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now, now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1"""
MANY, FEW = Limit(1_000_000, minutes=3), Limit(3, minutes=3)
TIERS = (Limit(1_000_000, seconds=18), Limit(1_000_000, seconds=90), MANY)
BATCH = 50


@dataclass
class Contender:
    name: str
    engine: str
    limits: tuple[Limit, ...]
    hits: int
    """Of each key, before it is measured."""

    def command(self, digest: str, key: bytes) -> bytes:
        if self.engine == "sorted set":
            limit = self.limits[0]
            return encode("EVALSHA", digest, 1, key, limit.units, limit.milliseconds)
        call = Call("HIT", (Group(key, self.limits, 1),))
        return encode(*(for_module(call) if self.engine == "module" else for_script(call, whole=False)).arguments)


CONTENDERS = [
    Contender("module, admitted", "module", (MANY,), 3),
    Contender("module, refused", "module", (FEW,), 4),
    Contender("module, three tiers", "module", TIERS, 3),
    Contender("script, admitted", "script", (MANY,), 3),
    Contender("script, refused", "script", (FEW,), 4),
    Contender("script, three tiers", "script", TIERS, 3),
    Contender("sorted set in Lua, admitted", "sorted set", (MANY,), 3),
    Contender("sorted set in Lua, refused", "sorted set", (FEW,), 4),
]


def encode(*words: str | bytes | int) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Run:
    def __init__(self, contender: Contender, program: str, keys: int) -> None:
        (port,) = free_ports(1)
        self.contender = contender
        self.server = Server(program, module=contender.engine == "module", port=port)
        self.client = self.server.client()
        self.digest = self.client.script_load(script()[0] if contender.engine == "script" else SORTED_SET)
        self.keys = keys
        self.empty = int(self.client.info("memory")["used_memory"])
        self.socket = socket.create_connection(("127.0.0.1", port))
        for _ in range(contender.hits):
            self.send(range(keys))
        self.bytes = (int(self.client.info("memory")["used_memory"]) - self.empty) // keys

    def cpu(self) -> float:
        """Microseconds."""
        process = self.server.process
        assert process
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1_000

    def send(self, keys: range | list[int]) -> float:
        commands = [self.contender.command(self.digest, b"key:%012d" % key) for key in keys]
        end = encode("ECHO", "the-end")
        before = self.cpu()
        for first in range(0, len(commands), BATCH):
            self.socket.sendall(b"".join(commands[first : first + BATCH]) + end)
            tail = b""
            while not tail.endswith(b"the-end\r\n"):
                tail = (tail + self.socket.recv(1 << 16))[-64:]
        return (self.cpu() - before) / len(commands)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keys", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--server", default="redis-server")
    chosen = options.parse_args()
    rnd = random.Random(1)
    wanted = [one for one in CONTENDERS if one.engine != "module" or MODULE.exists()]
    runs = [Run(one, chosen.server, chosen.keys) for one in wanted]
    times: list[list[float]] = [[] for _ in runs]
    try:
        for _ in range(chosen.rounds):
            for run, found in zip(runs, times, strict=True):
                found.append(run.send([rnd.randrange(chosen.keys) for _ in range(2_000)]))
    finally:
        for run in runs:
            run.server.close()
    print(f"{label(chosen.server)}, {chosen.keys} keys: CPU microseconds a decision, bytes a key after the hits\n")
    print(f"{'':30}{'least':>8}{'median':>8}{'hits':>6}{'bytes':>8}")
    for run, found in zip(runs, times, strict=True):
        one = run.contender
        print(f"{one.name:30}{min(found):8.2f}{statistics.median(found):8.2f}{one.hits:6}{run.bytes:8}")


if __name__ == "__main__":
    main()
