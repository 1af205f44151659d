"""What the histories do not show of the script: errors, expiry, replication, long logs, policies that share a key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from redis.commands.core import Script
from redis_ratelimit._call import script
from servers import START, Server, free_ports

MOST = 2**53 - 1


def register(server: Server) -> Script:
    return server.client().register_script(script()[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([-1, 1000], "limit"),
        ([1.5, 1000], "limit"),
        (["nan", 1000], "limit|each key"),
        ([2**53, 1000], "limit"),
        ([1], "window"),
        ([1, 0], "window"),
        ([1, "1s"], "window"),
        ([1, 315_360_000_001], "window"),
        ([1, "inf"], "window"),
        ([1, 1000] * 9, "tiers"),
        ([1, 1000, "COST"], "cost"),
        ([1, 1000, "COST", 0], "cost"),
        ([1, 1000, "COST", 2**53], "cost"),
        ([1, 1000, "COST", "x"], "cost"),
        ([1, 1000, "STRICT", "FORCE"], "syntax"),
        ([1, 1000, "AND"], "syntax"),
        ([1, 1000, "strict"], "syntax"),
        ([], "each key"),
        (["COST", 1], "each key"),
        (["REFUND", "COST", 0], "cost"),
        ([1, 1000, "REFUND"], "each key"),
    ],
)
def test_bad_arguments_are_errors_that_change_nothing(
    start: Callable[..., Server], words: list[object], message: str
) -> None:
    server = start()
    with pytest.raises(redis.ResponseError, match=message):
        register(server)(["k"], words)
    assert server.client().dbsize() == 0


def test_an_error_in_one_group_charges_none(start: Callable[..., Server]) -> None:
    server = start()
    ask = register(server)
    server.client().set("c", "x")
    for keys, words in (
        (["a", "b"], [1, 1000, "AND", -1, 1000]),
        (["a", "b"], [1, 1000]),
        (["a", "b"], [1, 1000, "AND"]),
        (["a", "c"], [1, 1000, "AND", 1, 1000]),
    ):
        with pytest.raises(redis.ResponseError):
            ask(keys, words)
    assert server.client().keys() == [b"c"]


def test_a_foreign_hash_is_left_alone(start: Callable[..., Server]) -> None:
    server = start()
    server.client().hset("k", "h", "x" * 100)
    with pytest.raises(redis.ResponseError, match="not written by this script"):
        register(server)(["k"], [1, 1000])
    assert server.client().hgetall("k") == {b"h": b"x" * 100}


def test_a_long_log(start: Callable[..., Server]) -> None:
    """Ten thousand hits in the window: the wait of any cost is exact, and what has left is deleted."""
    server = start(clock=True)
    ask, client = register(server), server.client()
    total = 10_000
    for nth in range(100):
        server.set_clock(START + nth * 10)
        pipe = client.pipeline(transaction=False)
        for _ in range(total // 100):
            ask(["k"], [total, 2_000], client=pipe)
        pipe.execute()
    now = START + 990
    for cost in (1, 99, 100, 101, 5_000, 9_999, 10_000):
        gone = START + -(-cost // 100) * 10 - 10
        assert ask(["k"], [total, 2_000, "COST", cost, "PEEK"])[3] == gone + 2_000 - now
    for window in (1, 11, 505, 995):
        used = total - ask(["k"], [total, window, "COST", 0, "PEEK"])[2]
        assert used == 100 * len([nth for nth in range(100) if START + nth * 10 > now - window])
    assert client.hlen("k") > 600
    for nth in range(600):
        server.set_clock(START + 4_000 + nth)
        ask(["k"], [total, 2_000, "COST", 10])
        client.persist("k")
    assert client.hlen("k") < 40


def test_a_log_dies_with_its_window_and_not_before(start: Callable[..., Server]) -> None:
    server = start(clock=True)
    ask, client = register(server), server.client()
    for nth in range(50):
        server.set_clock(START + nth * 37)
        ask(["k"], [100, 800])
        assert 800 <= client.pttl("k") <= 900
    server.set_clock(START + 49 * 37 + 901)
    assert not client.exists("k")


def test_the_longest_window_in_force_is_kept(start: Callable[..., Server]) -> None:
    """A short policy does not make a long one forget; one that is given up is forgotten."""
    server = start(clock=True)
    ask, client = register(server), server.client()
    for nth in range(400):
        server.set_clock(START + nth * 100)
        ask(["k"], [1000, 1_000])
        if nth % 90 == 0:
            # The long policy is asked once per window of its own, and refuses: it must see all hits of that window.
            assert 1_000 - ask(["k"], [1_000, 10_000, "COST", 0, "PEEK"])[2] == min(nth + 2, 100) or nth == 0
            ask(["k"], [50, 10_000] if nth else [1_000, 10_000])
    for nth in range(400, 800):
        server.set_clock(START + nth * 100)
        ask(["k"], [1000, 1_000])
    assert client.pttl("k") <= 1_125
    assert client.hlen("k") <= 4


def test_a_refusal_writes_nothing(start: Callable[..., Server]) -> None:
    server = start()
    ask, client = register(server), server.client()
    ask(["k"], [1, 60_000])
    before = (
        client.dump("k"),
        client.info("replication")["master_repl_offset"],
        client.info()["rdb_changes_since_last_save"],
    )
    for words in ([1, 60_000], [5, 60_000, "PEEK"], [1, 60_000, "COST", 2, "STRICT"], [0, 60_000]):
        ask(["k"], words)
    after = (
        client.dump("k"),
        client.info("replication")["master_repl_offset"],
        client.info()["rdb_changes_since_last_save"],
    )
    assert before == after


def test_a_flood_of_strict_refusals_is_bounded(start: Callable[..., Server]) -> None:
    server = start()
    ask, client = register(server), server.client()
    for _ in range(2_000):
        ask(["k"], [20, 600_000, "STRICT"])
    assert client.hlen("k") <= 8
    assert ask(["k"], [20, 600_000, "PEEK", "COST", 0])[2] == 0


def test_replicas_hold_the_same(start: Callable[..., Server]) -> None:
    (port,) = free_ports(1)
    primary, replica = Server("redis-server", "--repl-diskless-sync-delay", "0", port=port), Server()
    try:
        copy, client, ask = replica.client(), primary.client(), register(primary)
        copy.replicaof("127.0.0.1", port)
        while copy.info("replication")["master_link_status"] != "up":
            pass
        for nth in range(200):
            ask([f"k{nth % 3}"], [1_000, 50 if nth % 7 == 0 else 5_000, "COST", nth % 5 + 1])
            if nth % 20 == 0:
                ask(["k0"], ["REFUND", "COST", 30])
                ask(["k1", "k2"], [1, 5_000, "AND", 1, 5_000])
        client.wait(1, 5_000)
        for key in client.keys():
            assert client.hgetall(key) == copy.hgetall(key)
            assert client.pexpiretime(key) == copy.pexpiretime(key)
        # PEEK works there.
        assert copy.register_script(script()[0])(["k0"], [1, 5_000, "PEEK"])[0] == 0
    finally:
        primary.close()
        replica.close()


def test_full_memory_is_an_error_that_changes_nothing(start: Callable[..., Server]) -> None:
    server = start()
    ask, client = register(server), server.client()
    ask(["a"], [10, 60_000])
    before = client.dump("a")
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError):
            ask(["a", "b"], [10, 60_000, "AND", 10, 60_000])
        assert ask(["a"], [10, 60_000, "PEEK"])[2] == 8
    finally:
        client.config_set("maxmemory", 0)
    assert client.dump("a") == before and not client.exists("b")


def test_costs_up_to_the_largest(start: Callable[..., Server]) -> None:
    server = start(clock=True)
    ask = register(server)
    for nth in range(100):
        server.set_clock(START + nth * 1_000)
        assert ask(["k"], [MOST, 1_000, "COST", MOST])[:3] == [1, MOST, 0]
        assert ask(["k"], [MOST, 1_000])[:4] == [0, MOST, 0, 1_000]
