"""When Redis is away."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import oracle
import pytest
import redis
import servers
from redis_ratelimit import Limit, Limiter, aio
from redis_ratelimit._call import Call, Group
from redis_ratelimit._local import Local
from redis_ratelimit._outage import is_outage
from servers import Server


@pytest.fixture
def mortal() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_open_and_closed(mortal: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redis_ratelimit")
    opened = Limiter(mortal.url, pause=0.05)
    closed = Limiter(mortal.url, fail="closed", pause=0.05)
    for limiter in (opened, closed):
        assert limiter.hit("k", "10/minute").source == "redis"
    mortal.kill()
    for _ in range(5):
        answer = opened.hit("k", "10/minute;5/second", cost=2)
        assert answer.allowed and answer.source == "open" and (answer.limit, answer.remaining) == (5, 3)
        answer = closed.hit("k", "10/minute")
        assert not answer and answer.source == "closed" and answer.retry_after and answer.retry_after <= 0.05
        assert [one.allowed for one in closed.hit_many([("a", "1/s"), ("b", "1/s")])] == [False, False]
    assert opened.refund("k") == 0
    with pytest.raises((ConnectionError, redis.ConnectionError)):
        opened.reset("k")
    mortal.start()
    time.sleep(0.06)
    for limiter in (opened, closed):
        assert limiter.hit("k", "10/minute").source == "redis"
    words = [record.getMessage().split(" ")[1] for record in caplog.records]
    assert words == ["is", "is", "answers", "answers"]


def test_a_server_that_hangs(mortal: Server) -> None:
    limiter = Limiter(mortal.url, timeout=0.05, pause=10)
    assert limiter.hit("k", "10/minute")
    mortal.process.send_signal(signal.SIGSTOP)
    try:
        since = time.monotonic()
        assert [limiter.hit("k", "10/minute").source for _ in range(100)] == ["open"] * 100
        # One call has waited for the time-out; the others have not asked.
        assert 0.05 <= time.monotonic() - since < 0.5
    finally:
        mortal.process.send_signal(signal.SIGCONT)


def test_one_call_tries_at_a_time(mortal: Server) -> None:
    limiter = Limiter(mortal.url, pause=5)
    now = [100.0]
    limiter._monotonic = lambda: now[0]
    mortal.kill()
    assert limiter.hit("k", "1/s").source == "open"
    assert not limiter._breaker.admits(104.9)
    assert limiter._breaker.admits(105.0)
    assert not limiter._breaker.admits(105.1)
    assert limiter._breaker.admits(110.0)


def test_local_until_redis_answers(mortal: Server) -> None:
    limiter = Limiter(mortal.url, fail="local", local_share=0.5, pause=0.05)
    assert limiter.hit("k", "10/minute").remaining == 9
    mortal.kill()
    answers = [limiter.hit("k", "10/minute") for _ in range(7)]
    assert [answer.allowed for answer in answers] == [True] * 5 + [False] * 2
    assert {answer.source for answer in answers} == {"local"} and answers[0].limit == 5
    assert answers[0].headers()["RateLimit-Policy"] == '"default";q=5;w=60', "what this process grants"
    assert answers[-1].retry_after and 59 < answers[-1].retry_after <= 60
    assert limiter.refund("k", 2) == 2
    assert limiter.hit("k", "10/minute").remaining == 1
    mortal.start()
    time.sleep(0.06)
    assert limiter.hit("k", "10/minute").source == "redis"
    mortal.kill()
    assert limiter.hit("k", "10/minute").remaining == 4, "what was local is over"


def test_asyncio(mortal: Server) -> None:
    async def scenario() -> None:
        async with aio.Limiter(mortal.url, fail="closed", pause=0.05, timeout=1.0) as limiter:
            assert (await limiter.hit("k", "10/minute")).allowed
            mortal.kill()
            assert {(await limiter.hit("k", "10/minute")).source for _ in range(3)} == {"closed"}
            mortal.start()
            await asyncio.sleep(0.06)
            assert (await limiter.hit("k", "10/minute")).source == "redis"
            # A call that is cancelled is no outage.
            mortal.process.send_signal(signal.SIGSTOP)
            task = asyncio.ensure_future(limiter.hit("k", "10/minute"))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            mortal.process.send_signal(signal.SIGCONT)
            assert (await limiter.hit("k", "10/minute")).source == "redis"

    asyncio.run(scenario())


def test_many_calls_at_once_are_no_outage(mortal: Server) -> None:
    """More than there are connections: they take turns, and the limit holds."""

    async def asynchronous() -> list[str]:
        async with aio.Limiter(mortal.url, refusal_cache=0, timeout=2.0) as limiter:
            answers = await asyncio.gather(*(limiter.hit("k", "5/minute") for _ in range(1000)))
            assert sum(answer.allowed for answer in answers) == 5
            return [answer.source for answer in answers]

    assert asyncio.run(asynchronous()) == ["redis"] * 1000
    limiter = Limiter(mortal.url, refusal_cache=0, timeout=2.0, max_calls=8)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: limiter.hit("other", "5/minute"), range(500)))
    assert {answer.source for answer in answers} == {"redis"}
    assert sum(answer.allowed for answer in answers) == 5


def test_a_busy_event_loop_is_no_outage() -> None:
    """Each turn of the loop takes longer than the time-out, while connections are made and calls are sent."""
    (port,) = servers.free_ports(1)
    server = Server(port=port)

    async def work() -> None:
        for _ in range(30):
            time.sleep(0.06)
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with aio.Limiter(f"redis://localhost:{port}", timeout=0.05) as limiter:
            _, *answers = await asyncio.gather(work(), *(limiter.hit("k", "5/minute") for _ in range(10)))
            assert [answer.source for answer in answers] == ["redis"] * 10
            assert sum(answer.allowed for answer in answers) == 5

    try:
        asyncio.run(scenario())
    finally:
        server.close()


def test_many_calls_at_once_do_not_wait_in_turn_for_a_server_that_hangs(mortal: Server) -> None:
    async def scenario() -> None:
        async with aio.Limiter(mortal.url, timeout=0.2, pause=10, max_calls=4) as limiter:
            assert (await limiter.hit("k", "5/minute")).source == "redis"
            mortal.process.send_signal(signal.SIGSTOP)
            since = time.monotonic()
            answers = await asyncio.gather(*(limiter.hit("k", "5/minute") for _ in range(400)))
            assert {answer.source for answer in answers} == {"open"}
            # In turn it would be 20 s.
            assert time.monotonic() - since < 5

    try:
        asyncio.run(scenario())
    finally:
        mortal.process.send_signal(signal.SIGCONT)


def test_a_pool_that_is_too_small_is_a_mistake(mortal: Server) -> None:
    async def scenario() -> None:
        async with redis.asyncio.Redis.from_url(mortal.url, max_connections=2) as client:
            limiter = aio.Limiter(client)
            answers = await asyncio.gather(*(limiter.hit("k", "5/minute") for _ in range(20)), return_exceptions=True)
            assert {type(answer).__name__ for answer in answers} <= {"Answer", "MaxConnectionsError", "ConnectionError"}
            assert all(answer.source == "redis" for answer in answers if not isinstance(answer, BaseException))
            assert not all(isinstance(answer, BaseException) for answer in answers)
            fitting = aio.Limiter(client, max_calls=2)
            answers = await asyncio.gather(*(fitting.hit("other", "5/minute") for _ in range(20)))
            assert sum(answer.allowed for answer in answers) == 5

    asyncio.run(scenario())


def test_a_server_that_is_loading_or_full_is_an_outage(mortal: Server) -> None:
    limiter = Limiter(mortal.url, pause=0)
    assert limiter.hit("k", "10/minute")
    mortal.client().config_set("maxmemory", 1)
    assert limiter.hit("k", "10/minute").source == "open"
    mortal.client().config_set("maxmemory", 0)
    assert limiter.hit("k", "10/minute").remaining == 8
    mortal.client().replicaof("127.0.0.1", 1)
    assert limiter.hit("k", "10/minute").source == "open"


def test_what_is_an_outage() -> None:
    errors = redis.exceptions
    for error in (
        errors.ConnectionError(),
        errors.TimeoutError(),
        errors.BusyLoadingError(),
        errors.ClusterDownError("CLUSTERDOWN"),
        errors.ResponseError("MISCONF Redis is configured to save"),
        errors.ResponseError("BUSY Redis is busy running a script"),
        redis.sentinel.MasterNotFoundError(),
        OSError(),
    ):
        assert is_outage(error), error
    for error in (
        errors.ResponseError("WRONGTYPE Operation"),
        errors.ResponseError("syntax error"),
        errors.AuthenticationError(),
        errors.NoPermissionError(),
        errors.DataError(),
        errors.RedisClusterException("all keys must map to the same key slot"),
        ValueError(),
        TypeError(),
    ):
        assert not is_outage(error), error


def test_a_wrong_password_is_raised(mortal: Server) -> None:
    mortal.client().config_set("requirepass", "secret")
    with pytest.raises(redis.RedisError):
        Limiter(mortal.url).hit("k", "1/s")

    async def run(url: str) -> None:
        async with aio.Limiter(url) as limiter:
            for _ in range(2):
                with pytest.raises(redis.RedisError):
                    await limiter.hit("k", "1/s")

    asyncio.run(run(mortal.url))
    mortal.client(password="secret").config_set("requirepass", "")
    asyncio.run(run(f"{mortal.url}?db=99"))


@pytest.mark.parametrize("seed", range(30))
def test_local_answers_as_the_oracle(seed: int) -> None:
    rnd = random.Random(seed)
    local, logs = Local(1.0, 100), {key: oracle.Log() for key in (b"a", b"b")}
    longest, clock = rnd.choice([100, 1_000]), 10_000
    top = rnd.choice([5, 50])
    for _ in range(300):
        clock += rnd.choice(
            [0, 0, 1, rnd.randrange(longest // 10), rnd.randrange(2 * longest) if rnd.random() < 0.05 else 0]
        )
        kind = rnd.choice(["HIT", "HIT", "HIT", "PEEK", "STRICT", "FORCE"])
        keys = [rnd.choice(list(logs))] if rnd.random() < 0.8 else list(logs)
        if rnd.random() < 0.05:
            units, key = rnd.choice([1, 3, 100]), keys[0]
            assert local.refund(key, units, clock) == logs[key].refund(clock, longest, units)
            continue
        groups, asked = [], []
        for key in keys:
            windows = [longest, *(rnd.randrange(1, longest) for _ in range(rnd.randrange(3)))]
            tiers = [(rnd.randrange(top + 1), window) for window in windows]
            cost = rnd.choice([1, 1, rnd.randrange(1, 10)])
            asked.append(oracle.Group(logs[key], tiers, cost))
            groups.append(Group(key, tuple(Limit(limit, milliseconds=window) for limit, window in tiers), cost))
        call = Call("PEEK" if kind == "PEEK" else "MHIT", tuple(groups), kind if kind in ("STRICT", "FORCE") else "")
        assert local.ask(call, clock) == oracle.ask(asked, clock, kind)


def test_local_is_bounded_and_shares() -> None:
    local = Local(0.3, 2)
    limit = (Limit(10, seconds=1),)
    for key in (b"a", b"b", b"c"):
        local.ask(Call("HIT", (Group(key, limit, 1),)), 1_000)
    assert len(local._logs) == 2
    assert [local.part(Limit(units, seconds=1)).units for units in (0, 1, 3, 10, 100)] == [0, 1, 1, 3, 30]
    assert servers.ROOT.exists()
