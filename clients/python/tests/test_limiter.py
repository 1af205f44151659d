"""The limiter on real servers, with both engines, in threads and in asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import servers
from redis_ratelimit import Limiter, UnsupportedError, aio
from servers import Server


class Blocking:
    """The limiter of asyncio, called like the other one, so that the same tests run on both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.limiter = aio.Limiter(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.limiter, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *arguments, **options: self.loop.run_until_complete(value(*arguments, **options))


@pytest.fixture(params=[Limiter, Blocking], ids=["threads", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def get(*arguments: Any, **options: Any) -> Any:
        made.append(request.param(*arguments, **{"timeout": 5.0, **options}))
        return made[-1]

    yield get
    for limiter in made:
        limiter.close()
        if isinstance(limiter, Blocking):
            limiter.loop.close()


@pytest.fixture
def limiter(make: Callable[..., Any], server: Server) -> Any:
    return make(server.url, refusal_cache=0)


def needs(server: Server, command: str) -> None:
    """Skips where the module is older than the command."""
    client = server.client()
    has_module, has_command = (any(client.execute_command("COMMAND INFO", name)) for name in ("RATELIMIT.HIT", command))
    if has_module and not has_command:
        pytest.skip(f"this module has no {command}")


def test_hits_until_the_limit(limiter: Any, engine: str) -> None:
    first = limiter.hit("user:42", "2/minute")
    assert (first.allowed, first.limit, first.remaining, first.retry_after) == (True, 2, 1, 0.0)
    assert first.reset_after == first.next_after == 60.0 and first.source == "redis" and first
    assert limiter.engine == engine
    assert limiter.hit("user:42", "2/minute").remaining == 0
    third = limiter.hit("user:42", "2/minute")
    assert not third and 59 < third.retry_after <= 60 and third.headers()["Retry-After"] == "60"
    assert limiter.hit(b"user:43", "2/minute").allowed


def test_tiers_and_costs(limiter: Any) -> None:
    assert limiter.hit("k", "10/second;500/hour", cost=4).remaining == 6
    refused = limiter.hit("k", "10/second", "500/hour", cost=7)
    assert not refused and refused.limit == 10 and 0 < refused.retry_after <= 1
    assert limiter.hit("k", "3/hour", cost=4).retry_after is None


def test_peek_changes_nothing(limiter: Any, server: Server) -> None:
    assert limiter.peek("k", "2/minute").remaining == 1
    assert server.client().dbsize() == 0


def test_reset(limiter: Any) -> None:
    limiter.hit("a", "1/minute")
    limiter.hit("b", "1/minute")
    assert not limiter.hit("a", "1/minute")
    assert limiter.reset("a", "b", "c") == 2
    assert limiter.hit("a", "1/minute")
    assert limiter.reset() == 0


def test_strict(limiter: Any) -> None:
    assert limiter.hit("login", "1/minute", strict=True)
    assert not limiter.hit("login", "1/minute", strict=True)
    assert limiter.peek("login", "10/minute").remaining == 7


def test_new_forms(limiter: Any, server: Server) -> None:
    needs(server, "RATELIMIT.REFUND")
    assert limiter.peek("k", "5/minute", cost=0).remaining == 5
    both = limiter.hit("k", "5/minute", "5/hour", cost=3, tiers=True)
    assert [(tier.limit, tier.remaining, tier.reset_after) for tier in both.tiers] == [(5, 2, 60.0), (5, 2, 3600.0)]
    assert limiter.refund("k", 2) == 2
    assert limiter.peek("k", "5/minute", cost=0).remaining == 4
    forced = limiter.hit("k", "5/minute", cost=9, force=True)
    assert not forced and forced.retry_after is None
    assert limiter.refund("k", 100) == 10
    assert limiter.refund("k") == 0


def test_several_keys(limiter: Any, server: Server) -> None:
    needs(server, "RATELIMIT.REFUND")
    charges = [("user:{42}", "2/second;5/hour"), ("org:{42}", "100/minute", 10)]
    user, org = limiter.hit_many(charges)
    assert user.allowed and (user.limit, user.remaining, org.limit, org.remaining) == (2, 1, 100, 90)
    user, org = limiter.hit_many([("user:{42}", "1/hour"), ("org:{42}", "100/minute", 10)])
    assert not user and not org and user.retry_after > 0 and org.retry_after == 0
    assert limiter.peek("org:{42}", "100/minute", cost=0).remaining == 90


def test_several_keys_of_one_limit(limiter: Any, server: Server) -> None:
    needs(server, "RATELIMIT.REFUND")
    user, org = limiter.hit_many([("user:{7}", "1/hour"), ("org:{7}", "100/minute")])
    assert user.allowed and org.remaining == 99
    assert [answer.allowed for answer in limiter.hit_many([("user:{7}", "1/hour"), ("org:{7}", "100/minute")])] == [
        False
    ] * 2


def test_wait(limiter: Any, server: Server, engine: str) -> None:
    if engine == "script":
        with pytest.raises(UnsupportedError):
            limiter.hit("k", "1/s", wait=1)
        return
    needs(server, "RATELIMIT.REFUND")
    assert limiter.hit("k", "1/300ms", wait=1)
    assert limiter.hit("k", "1/300ms", wait=1)
    refused = limiter.hit("k", "1/minute", wait=0.1)
    assert not refused and refused.retry_after > 1


def test_prefix(make: Callable[..., Any], server: Server, engine: str) -> None:
    make(server.url, prefix="rl:").hit("k", "1/s")
    assert server.client().keys() == [b"rl:k" if engine == "module" else b"rl:k:ratelimit"]


def test_what_the_server_calls_a_mistake_is_raised(make: Callable[..., Any], server: Server, engine: str) -> None:
    key = "k" if engine == "module" else "k:ratelimit"
    server.client().set(key, "x")
    for fail in ("open", "closed", "local"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            make(server.url, fail=fail).hit("k", "1/s")
    assert server.client().get(key) == b"x"


def test_engines_by_name(make: Callable[..., Any], start: Callable[..., Server]) -> None:
    both, none = start(module=True), start()
    script = make(both.url, engine="script")
    assert script.hit("k", "1/minute") and script.engine == "script"
    # The engines have logs of their own.
    assert make(both.url).hit("k", "1/minute")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        make(none.url, engine="module").hit("k", "1/minute")


def test_a_server_that_forgets_the_script(make: Callable[..., Any], start: Callable[..., Server]) -> None:
    server = start()
    limiter = make(server.url)
    for _ in range(2):
        assert limiter.hit("k", "10/minute").allowed
        server.client().script_flush()
    assert limiter.peek("k", "10/minute", cost=0).remaining == 8
    assert limiter.engine == "script"


def test_the_first_call_finds_the_engine_whatever_it_is(make: Callable[..., Any], server: Server, engine: str) -> None:
    for call in (lambda one: one.refund("k"), lambda one: one.reset("k"), lambda one: one.peek("k", "1/s")):
        limiter = make(server.url)
        try:
            call(limiter)
        except redis.ResponseError as error:
            assert engine == "module" and "unknown command" in str(error)
        else:
            assert limiter.engine == engine


def test_a_server_that_gains_or_loses_the_module(make: Callable[..., Any]) -> None:
    if not servers.MODULE.exists():
        pytest.skip("the module is not built")
    server = Server()
    try:
        limiter = make(server.url)
        assert limiter.hit("k", "1/minute") and limiter.engine == "script"
        for module in (True, False):
            server.kill()
            server.command = [word for word in server.command if word not in ("--loadmodule", str(servers.MODULE))]
            server.command += ["--loadmodule", str(servers.MODULE)] if module else []
            server.start()
            assert limiter.hit("k", "1/minute").source == "redis"
            assert limiter.engine == ("module" if module else "script")
    finally:
        server.close()


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}, {"protocol": 2}])
def test_clients_with_options(server: Server, options: dict[str, object]) -> None:
    limiter = Limiter(server.client(**options))
    assert limiter.hit("k", "2/minute").remaining == 1
    assert limiter.hit("k", "2/minute").remaining == 0
    assert not limiter.hit("k", "2/minute")
    assert limiter.reset("k") == 1


def test_keys_are_any_bytes(limiter: Any) -> None:
    for key in ("", "ключ", b"\xff\x00", "a" * 5000):
        assert limiter.hit(key, "1/minute")
        assert not limiter.hit(key, "1/minute")


@pytest.mark.parametrize("program", servers.programs(), ids=servers.label)
def test_all_servers(start: Callable[..., Server], program: str, engine: str) -> None:
    server = start(program, module=engine == "module")
    limiter = Limiter(server.url, refusal_cache=0, timeout=5.0)
    assert [limiter.hit("k", "3/minute;100/hour", cost=2).allowed for _ in range(2)] == [True, False]
    assert limiter.hit("k", "3/minute;100/hour").remaining == 0
    assert all(limiter.hit("many", "1000/minute") for _ in range(100))
    assert limiter.peek("many", "1000/minute").remaining == 899
    assert limiter.engine == engine
    if engine == "script":
        assert limiter.refund("many", 90) == 90
        assert limiter.hit("many", "1000/minute", "20/hour", cost=11, tiers=True).tiers[1].remaining == 10
        with pytest.raises(redis.ResponseError, match="syntax"):
            server.client().eval(_source(), 1, "k", 1, 1000, "NONSENSE")


def _source() -> str:
    from redis_ratelimit._call import script

    return script()[0]
