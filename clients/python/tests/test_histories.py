"""The script against the oracle: random histories on a clock that the test sets."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import redis
from redis_ratelimit._call import script
from servers import ROOT, START, Server

COSTS = [
    lambda rnd: 1,
    lambda rnd: rnd.randrange(1, 20),
    lambda rnd: rnd.choice([1, 1, 2**52, 2**53 - 1, rnd.randrange(1, 2**53)]),
]


class World:
    """Logs on a server, and what the oracle holds of them."""

    def __init__(self, server: Server, seed: int, library: bool = False) -> None:
        self.rnd = random.Random(seed)
        self.server = server
        self.client = server.client()
        self.script = load_library(self.client) if library else self.client.register_script(script()[0])
        self.clock = START
        server.set_clock(self.clock)
        # One longest window for each key: what is kept longer or shorter is tested elsewhere.
        self.kept = self.rnd.choice([1_000, 10_000, 100_000])
        self.windows = [self.kept] + [self.rnd.randrange(1, self.kept) for _ in range(3)]
        self.cost = self.rnd.choice(COSTS)
        self.top = self.rnd.choice([5, 60, 400, 2**53 - 1])
        self.pauses = [0, 0, 1, self.rnd.randrange(1, self.kept // 20 + 2), self.rnd.randrange(1, self.kept)]
        self.rare = self.rnd.choice([0.0, 0.02, 0.3])
        self.logs = {key: oracle.Log() for key in ("a", "b", "c")}

    def step(self, back: bool) -> None:
        rnd = self.rnd
        self.clock += self.pauses[-1] if rnd.random() < self.rare else rnd.choice(self.pauses[:-1])
        if back and rnd.random() < 0.02:
            self.clock -= rnd.randrange(1, 3 * self.kept)
        self.server.set_clock(self.clock)
        for key, log in self.logs.items():
            if log.hits and not self.client.exists(key):
                assert not log.view(self.clock, self.kept).hits, "the key has expired too early"
                log.hits.clear()
        what = rnd.random()
        # If the newest hits are taken back and the clock is then set back, hits that had expired may count again.
        if what < 0.05 and not back:
            self.refund()
        elif what < 0.15:
            self.ask(rnd.sample(sorted(self.logs), rnd.randrange(2, 4)), rnd.choice(["HIT", "HIT", "STRICT", "FORCE"]))
        else:
            self.ask([rnd.choice(sorted(self.logs))], rnd.choice(["HIT"] * 8 + ["PEEK", "STRICT", "FORCE"]))

    def refund(self) -> None:
        key, units = self.rnd.choice(sorted(self.logs)), self.rnd.choice([1, 2, 30, 1000, 2**53 - 1])
        given = self.logs[key].refund(self.clock, self.kept, units)
        assert self.script([key], ["REFUND", "COST", units]) == given

    def tiers(self) -> list[tuple[int, int]]:
        windows = [self.kept, *self.rnd.choices(self.windows, k=self.rnd.choice([0, 0, 1, 2, 7]))]
        self.rnd.shuffle(windows)
        return [(self.rnd.choice([self.top, self.top, self.rnd.randrange(0, self.top)]), window) for window in windows]

    def ask(self, keys: list[str], mode: str) -> None:
        rnd = self.rnd
        groups = [
            oracle.Group(self.logs[key].view(self.clock, self.kept), self.tiers(), self.cost(rnd)) for key in keys
        ]
        if mode == "PEEK" and rnd.random() < 0.3:
            groups[0].cost = 0
        words: list[object] = []
        for group in groups:
            words += ["AND"] if words else []
            words += [number for tier in group.tiers for number in tier]
            words += ["COST", group.cost] if group.cost != 1 or rnd.random() < 0.2 else []
        with_tiers = rnd.random() < 0.3
        words += [mode] if mode != "HIT" else []
        words += ["WITHTIERS"] if with_tiers else []
        reply = self.script(keys, words)
        expected = oracle.ask(groups, self.clock, mode)
        replies = [reply] if len(keys) == 1 else reply
        for key, group, got, tiers in zip(keys, groups, replies, expected, strict=True):
            if group.stored:
                self.logs[key] = group.log
            rows = got if with_tiers else [got]
            if mode == "STRICT" and group.stored and not tiers[0][0]:
                # A strict refusal may drop hits beyond the newest ones, as many as its largest limit, besides its own.
                held = oracle.MOST - self.script([key], [oracle.MOST, self.kept, "PEEK", "COST", 0])[2]
                now = group.log.now(self.clock)
                most = max(limit for limit, _ in group.tiers)
                while group.log.used(now, self.kept) > held and len(group.log.hits) > most + 1:
                    del group.log.hits[0]
                    tiers = [
                        oracle.six(group.log, tier, group.cost, self.clock, now, False, False) for tier in group.tiers
                    ]
            assert rows == self.wanted(tiers, with_tiers), (words, group.log.hits[-40:], self.clock)

    @staticmethod
    def wanted(tiers: list[list[int]], with_tiers: bool) -> list[list[int]]:
        return tiers if with_tiers else [oracle.binding(tiers)]


def load_library(client: redis.Redis) -> Callable[[list[str], list[object]], Any]:
    """The same script as a function of the server."""
    library = subprocess.run([ROOT / "clients/lua/library.sh"], capture_output=True, text=True, check=True).stdout
    client.function_load(library, replace=True)
    return lambda keys, words: client.fcall("ratelimit", len(keys), *keys, *words)


@pytest.mark.parametrize("seed", range(2))
def test_the_library_answers_as_the_oracle(start: Callable[..., Server], seed: int) -> None:
    world = World(start(clock=True), seed, library=True)
    for _ in range(300):
        world.step(False)


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("HISTORIES", 8))))
def test_the_script_answers_as_the_oracle(start: Callable[..., Server], seed: int, back: bool) -> None:
    server = start(clock=True)
    world = World(server, seed)
    for _ in range(300):
        world.step(back)
