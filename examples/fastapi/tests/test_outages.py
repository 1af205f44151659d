"""Redis away, hanging, back, and without the module. The application is never restarted."""

import asyncio
import signal
import time

import pytest
from conftest import at_once, wait_for
from rate_monitor.limiter import Unavailable

from rate_monitor import Limiter


@pytest.fixture
def app(start):
    return start("features.py")


def settle(app):
    """Waits until requests are limited again."""
    wait_for("the limiter", lambda: "RateLimit" in app.get("/open").headers)


def test_killed_and_back(app, server):
    settle(app)
    server.kill()
    for _ in range(10):
        response = app.get("/open")
        assert (response.status_code, "RateLimit" in response.headers) == (200, False)
        response = app.get("/closed")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == 503
    assert app.output().count("no answer from Redis") == 1
    server.start()
    settle(app)
    assert app.get("/closed").headers["RateLimit"].startswith('"closed";r=1;')
    assert app.output().count("Redis answers again") == 1
    # The next outage is logged again.
    server.kill()
    wait_for("the next outage", lambda: app.get("/closed").status_code == 503)
    assert app.output().count("no answer from Redis") == 2
    server.start()


def test_a_server_that_hangs_costs_three_requests_their_time_and_the_others_none(start, server):
    app = start("features.py", RATE_LIMIT_TIMEOUT="0.5", PAUSE="2")
    settle(app)
    logged = app.output().count("no answer from Redis")

    def time_of_requests(count):
        since = time.monotonic()
        assert {app.get("/open").status_code for _ in range(count)} == {200}
        return time.monotonic() - since

    server.send(signal.SIGSTOP)
    try:
        assert time_of_requests(3) >= 3 * 0.5
        assert time_of_requests(10) < 5 * 0.5
        assert set(at_once(100, "/open", app)) == {200}
        assert app.output().count("no answer from Redis") == logged + 1
    finally:
        server.send(signal.SIGCONT)
    settle(app)


def test_one_call_finds_out_whether_it_is_back(server):
    async def times_of_calls(limiter, count):
        async def time_of_call():
            since = time.monotonic()
            with pytest.raises(Unavailable):
                await limiter.call("RATELIMIT.HIT", "rl:a", 1, "1m")
            return time.monotonic() - since

        return await asyncio.gather(*(time_of_call() for _ in range(count)))

    async def run():
        async with Limiter(server.url, timeout=0.3, pause=0.5) as limiter:
            assert min(await times_of_calls(limiter, 3)) >= 0.3
            assert max(await times_of_calls(limiter, 20)) < 0.3
            await asyncio.sleep(0.5)
            slow = [seconds for seconds in await times_of_calls(limiter, 20) if seconds >= 0.3]
            assert len(slow) == 1

    server.send(signal.SIGSTOP)
    try:
        asyncio.run(run())
    finally:
        server.send(signal.SIGCONT)


def test_a_server_that_was_away_at_the_start(start, server):
    server.kill()
    app = start("features.py")
    assert app.get("/open").status_code == 200
    assert app.get("/closed").status_code == 503
    server.start()
    settle(app)


def test_a_server_without_the_module_is_no_limiter(app, server):
    settle(app)
    server.kill()
    server.start(module=False)
    for _ in range(5):
        assert app.get("/open").status_code == 200
        assert app.get("/closed").status_code == 503
    server.kill()
    server.start()
    settle(app)


def test_an_error_is_no_answer_and_costs_no_time(app, server):
    settle(app)
    server.client.config_set("maxmemory", 1)
    for _ in range(5):
        assert app.get("/open").status_code == 200
        assert app.get("/closed").status_code == 503
    assert app.output().count("no answer from Redis") == 1
    server.client.config_set("maxmemory", 0)
    assert "RateLimit" in app.get("/open").headers, "at once, for nobody needs to be spared"


def test_the_routes_fail_as_the_setting_says(start, server):
    closed, open = (start(RATE_LIMIT_FAIL=fail, RATE_LIMIT_TIMEOUT="1") for fail in ("closed", "open"))
    server.kill()
    assert closed.get("/protected").status_code == 503
    assert open.get("/protected").status_code == 200
    login = {"username": "a", "password": "open sesame"}
    assert open.client.post("/login", json=login).status_code == 503, "this one says for itself"
    assert closed.get("/").status_code == 200
    server.start()
