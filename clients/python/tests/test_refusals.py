"""What is remembered of refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis_ratelimit import Limiter
from servers import Server


class Clocked(Limiter):
    """Time passes only when the test says so; the server's clock does not matter."""

    def __init__(self, server: Server, **options: object) -> None:
        super().__init__(server.url, timeout=5.0, **options)  # type: ignore[arg-type]
        self.time = 1_000.0
        self._monotonic = lambda: self.time


def calls(server: Server) -> int:
    """Commands that the server has executed."""
    return int(server.client().info("stats")["total_commands_processed"])


def sent(server: Server, act: Callable[[], object]) -> int:
    idle = -calls(server) + calls(server)
    before = calls(server)
    act()
    return calls(server) - before - idle


def test_a_refusal_is_remembered(server: Server) -> None:
    limiter = Clocked(server)
    assert limiter.hit("k", "1/hour")
    first = limiter.hit("k", "1/hour")
    assert not first and first.source == "redis"
    limiter.time += 0.25
    assert sent(server, lambda: [limiter.hit("k", "1/hour") for _ in range(100)]) == 0
    known = limiter.hit("k", "1/hour")
    assert known.source == "cache" and not known and known.limit == 1
    assert known.retry_after == pytest.approx(first.retry_after - 0.25, abs=1e-6)
    # For a second at most.
    limiter.time += 0.75
    assert limiter.hit("k", "1/hour").source == "redis"


def test_not_longer_than_the_wait(server: Server) -> None:
    limiter = Clocked(server, refusal_cache=100.0)
    assert limiter.hit("k", "1/minute")
    wait = limiter.hit("k", "1/minute").retry_after
    assert wait is not None
    limiter.time += wait - 0.001
    assert limiter.hit("k", "1/minute").source == "cache"
    limiter.time += 0.002
    assert limiter.hit("k", "1/minute").source == "redis"


def test_another_call_is_sent(server: Server) -> None:
    limiter = Clocked(server)
    limiter.hit("k", "5/hour", cost=4)
    assert not limiter.hit("k", "5/hour", cost=2)
    assert limiter.hit("k", "5/hour", cost=2).source == "cache"
    assert limiter.hit("k", "5/hour").allowed
    assert limiter.hit("k", "5/hour", cost=2, strict=True).source == "redis"
    assert limiter.peek("k", "5/hour", cost=2).source == "redis"
    assert limiter.hit("other", "5/hour").allowed


def test_reset_forgets(server: Server) -> None:
    limiter = Clocked(server)
    limiter.hit("k", "1/hour")
    assert not limiter.hit("k", "1/hour")
    limiter.reset("k")
    assert limiter.hit("k", "1/hour").allowed


def test_never_is_remembered_as_well(server: Server) -> None:
    limiter = Clocked(server)
    assert limiter.hit("k", "0/hour").retry_after is None
    known = limiter.hit("k", "0/hour")
    assert known.source == "cache" and known.retry_after is None


def test_off(server: Server) -> None:
    limiter = Clocked(server, refusal_cache=0)
    assert {limiter.hit("k", "0/hour").source for _ in range(3)} == {"redis"}


def test_it_is_bounded(server: Server) -> None:
    limiter = Clocked(server, max_keys=10)
    for nth in range(30):
        limiter.hit(f"k{nth}", "0/hour")
    assert [nth for nth in range(30) if limiter.hit(f"k{nth}", "0/hour").source == "cache"] == []
    limiter.hit("k", "0/hour")
    assert limiter.hit("k", "0/hour").source == "cache"
    assert len(limiter._refusals._found) == 10
