from __future__ import annotations

import pytest
from redis_ratelimit import Answer, Limit, Limiter
from redis_ratelimit._limits import parse_limits


@pytest.mark.parametrize(
    ("text", "units", "milliseconds"),
    [
        ("10/second", 10, 1_000),
        ("100 per minute", 100, 60_000),
        ("5/30s", 5, 30_000),
        ("5 / 1.5 hours", 5, 5_400_000),
        ("0/day", 0, 86_400_000),
        ("7/250ms", 7, 250),
        ("1 PER 2 Weeks", 1, 1_209_600_000),
        ("9007199254740991/3650d", 2**53 - 1, 315_360_000_000),
    ],
)
def test_spellings(text: str, units: int, milliseconds: int) -> None:
    limit = Limit.parse(text)
    assert limit == Limit(units, milliseconds=milliseconds)
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10/",
        "/s",
        "10/fortnight",
        "-1/s",
        "1.5/s",
        "1/0s",
        "1/0.5ms",
        "1/3651d",
        "10per s x",
        "9007199254740992/s",
        "٣/s",
    ],
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError):
        Limit.parse(text)


def test_several_limits() -> None:
    both = (Limit(10, seconds=1), Limit(500, hours=1))
    assert parse_limits("10/second;500/hour") == both
    assert parse_limits(["10/second", Limit(500, minutes=60)]) == both
    assert Limit(1, seconds=0.3).milliseconds == 300
    for wrong in ([], ["1/s"] * 9):
        with pytest.raises(ValueError):
            parse_limits(wrong)
    with pytest.raises(TypeError):
        parse_limits([10])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        Limit(1.5, seconds=1)  # type: ignore[arg-type]


def test_wrong_arguments_are_errors_before_anything_is_sent() -> None:
    limiter = Limiter("redis://127.0.0.1:1")
    for call in (
        lambda: limiter.hit("k", "1/s", cost=0),
        lambda: limiter.hit("k", "1/s", cost=2**53),
        lambda: limiter.hit("k"),
        lambda: limiter.hit("k", "nonsense"),
        lambda: limiter.hit("k", "1/s", strict=True, force=True),
        lambda: limiter.hit("k", "1/s", wait=0),
        lambda: limiter.peek("k", "1/s", cost=-1),
        lambda: limiter.refund("k", 0),
        lambda: limiter.hit_many([]),
        lambda: limiter.hit_many([("k", "1/s"), ("k", "1/s")]),
        lambda: Limiter("redis://", "other"),  # type: ignore[arg-type]
        lambda: Limiter("redis://", fail="maybe"),  # type: ignore[arg-type]
        lambda: Limiter("redis://", local_share=0),
    ):
        with pytest.raises(ValueError):
            call()
    for call in (
        lambda: limiter.hit(7, "1/s"),  # type: ignore[arg-type]
        lambda: limiter.hit("k", "1/s", cost=True),
        lambda: limiter.hit("k", "1/s", cost=1.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()


def test_headers() -> None:
    limit = Limit(100, minutes=1)
    answer = Answer(True, 100, 50, 0.0, 59.999, 29.001, policy=(limit,))
    assert answer.headers() == {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";r=50;t=30'}
    assert answer.headers(name="api")["RateLimit"] == '"api";r=50;t=30'
    refused = Answer(False, 100, 0, 0.001, 60.0, 0.001, policy=(limit,))
    assert refused.headers()["Retry-After"] == "1"
    assert "Retry-After" not in Answer(False, 0, 0, None, 0.0, 0.0, policy=(Limit(0, seconds=1),)).headers()
    legacy = refused.headers(legacy=True)
    assert legacy["X-RateLimit-Limit"] == "100" and legacy["X-RateLimit-Remaining"] == "0"
    assert int(legacy["X-RateLimit-Reset"]) > 1_700_000_000
    large = Limit(2**53 - 1, seconds=1)
    assert (
        Answer(True, large.units, large.units, 0.0, 0.0, 0.0, policy=(large,))
        .headers()["RateLimit"]
        .startswith('"default";r=999999999999999;')
    )


def test_headers_of_several_limits() -> None:
    policy = (Limit(10, seconds=1), Limit(500, hours=1))
    binds = Answer(True, 500, 3, 0.0, 3600.0, 12.5, policy=policy)
    assert binds.headers()["RateLimit-Policy"] == '"10/1s";q=10;w=1, "500/1h";q=500;w=3600'
    assert binds.headers()["RateLimit"] == '"500/1h";r=3;t=13'
    tiers = (Answer(True, 10, 9, 0.0, 1.0, 1.0), Answer(True, 500, 3, 0.0, 3600.0, 12.5))
    both = Answer(True, 500, 3, 0.0, 3600.0, 12.5, tiers=tiers, policy=policy)
    assert both.headers()["RateLimit"] == '"10/1s";r=9;t=1, "500/1h";r=3;t=13'
