"""What else `RateLimit` and `AllOf` can do, with the application in features.py."""

import re

import httpx
import pytest

from rate_monitor import AllOf, RateLimit
from rate_monitor.limits import seconds


@pytest.fixture(scope="module")
def app(start):
    return start("features.py")


def test_tiers(app, server):
    first = app.get("/tiered", **{"X-User": "a"})
    assert first.headers["RateLimit-Policy"] == '"tiered-10s";q=2;w=10, "tiered-1h";q=3;w=3600'
    assert first.headers["RateLimit"] == '"tiered-10s";r=1;t=10;pk=:YQ==:'
    answer = first.json()
    assert (answer["allowed"], answer["limit"], answer["remaining"]) == (1, 2, 1)
    app.get("/tiered", **{"X-User": "a"})
    assert app.get("/tiered", **{"X-User": "a"}).json()["violated-policies"] == ["tiered-10s"]
    assert server.client.xlen("rl:tiered:a") == 2, "one entry for both tiers, and none for what was refused"

    server.hits("rl:tiered:b", "3600000ms", 1800, 1700, 1600)
    refused = app.get("/tiered", **{"X-User": "b"})
    assert refused.json()["violated-policies"] == ["tiered-1h"]
    assert 1700 < int(refused.headers["Retry-After"]) <= 1800
    assert refused.headers["RateLimit"] == f'"tiered-1h";r=0;t={refused.headers["Retry-After"]};pk=:Yg==:'


def test_times_are_rounded_up():
    assert [seconds(ms) for ms in (0, 1, 999, 1000, 1001)] == [0, 1, 1, 1, 2]


def test_headers_when_the_route_raises(app):
    for expected in (418, 418, 429):
        response = app.get("/raises")
        assert response.status_code == expected
        assert response.headers["RateLimit-Policy"] == '"raises";q=2;w=60'
    assert app.get("/raises").headers["Retry-After"]


def test_headers_when_the_request_is_invalid(app):
    response = app.get("/invalid?number=x")
    assert response.status_code == 422
    assert response.headers["RateLimit"].startswith('"invalid";r=1;')


def test_headers_when_the_answer_is_a_stream(app):
    response = app.get("/streams")
    assert (response.text, response.headers["RateLimit-Policy"]) == ("ab", '"streams";q=2;w=60')


def test_limits_of_one_name_share_a_log_and_the_short_one_forgets_nothing(app, server):
    """The sixth fault of the recipe: see `tests/server/recipe.rs`."""
    server.hits("rl:shared:127.0.0.1", "60000ms", 30, 29)
    assert app.get("/short").status_code == 200
    # Three hits in a minute, whichever route took them.
    assert app.get("/long").status_code == 429


def test_two_limits_on_a_route_are_two_calls(app):
    assert app.get("/both", **{"X-User": "a"}).status_code == 200
    refused = app.get("/both", **{"X-User": "a"})
    assert refused.json()["violated-policies"] == ["other"]
    assert re.match(r'"one";r=3;.*, "other";r=0;', refused.headers["RateLimit"]), "the first was charged"


def test_all_of_charges_all_or_none(app):
    def get(user):
        return app.get("/all", **{"X-User": user})

    assert [get("a@x").status_code for _ in range(3)] == [200, 200, 429]
    assert get("b@x").status_code == 200
    refused = get("b@x")
    assert refused.json()["violated-policies"] == ["team"]
    assert re.match(r'"user";r=1;.*, "team";r=0;', refused.headers["RateLimit"]), "neither was charged"
    assert get("c@y").status_code == 200


def test_a_cost_that_is_none_is_the_programs_fault_and_no_outage(app):
    # Each on its own connection, because the server hangs up after such an error.
    assert [httpx.get(f"{app.url}/weighed?units={n}").status_code for n in (-1, 2**53, -1)] == [500] * 3
    assert app.get("/weighed?units=3").headers["RateLimit"].startswith('"weighed";r=7;')
    assert "no answer from Redis" not in app.output()


def test_a_limit_of_0_is_never(app):
    response = app.get("/never")
    assert response.status_code == 429
    assert "Retry-After" not in response.headers


def test_what_is_no_limit_is_told_at_once():
    wrong = "10 10/ /minute x/minute -1/minute 01/minute 10/fortnight 10/1.5ms 10/0s 10/3651d 10/60".split()
    for limit in [*wrong, f"{2**53}/minute"]:
        with pytest.raises(ValueError, match="is not a limit like"):
            RateLimit("name", limit)
    for limits in [(), ("10/minute", "10/hour"), [f"{n}/{n}h" for n in range(1, 10)]]:
        with pytest.raises(ValueError, match="1 to 8 different limits"):
            RateLimit("name", *limits)
    with pytest.raises(ValueError, match="is not a name"):
        RateLimit("a name: with others", "1/second")


def test_what_all_of_cannot_do_is_told_at_once():
    one = RateLimit("one", "1/second")
    strict, weighed = RateLimit("strict", "1/second", strict=True), RateLimit("weighed", "1/second", cost=2)
    tiered, closed = RateLimit("tiered", "1/second", "2/hour"), RateLimit("closed", "1/second", fail="closed")
    for limits in [(), (one, one), (one, strict), (one, weighed), (one, tiered), (one, closed)]:
        with pytest.raises(ValueError, match="AllOf takes"):
            AllOf(*limits)
