"""The storages for `limits`, and slowapi and Flask-Limiter on them. scripts/python.sh has the tests of `limits`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis_ratelimit.limits
import web
from fastapi import FastAPI, Request
from flask import Flask
from flask_limiter import Limiter as FlaskLimiter
from limits import parse
from limits.aio.strategies import MovingWindowRateLimiter as AsyncMovingWindow
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from servers import Server
from slowapi import Limiter as SlowLimiter
from slowapi import _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded

TWO = parse("2/minute")


def uri(server: Server, prefix: str = "") -> str:
    return f"{prefix}redis+ratelimit+unix://{server.socket}"


def test_the_engine_decides_the_moving_window(server: Server, engine: str) -> None:
    storage: Any = storage_from_string(uri(server), engine=engine)
    limiter = MovingWindowRateLimiter(storage)
    assert [limiter.hit(TWO, "user") for _ in range(3)] == [True, True, False]
    (key,) = server.client().keys()
    assert key.startswith(b"RATELIMIT:moving:LIMITER/user/2/1/minute")
    assert server.client().type(key) == (b"stream" if engine == "module" else b"hash")
    stats = limiter.get_window_stats(TWO, "user")
    assert stats.remaining == 0 and 50 < stats.reset_time - time.time() <= 60
    assert not limiter.test(TWO, "user") and limiter.test(TWO, "other")
    assert limiter.hit(TWO, "other", cost=2) and not limiter.hit(TWO, "other")
    assert limiter.hit(TWO, "other", cost=0)
    # Both forget refusals that are remembered in the process.
    limiter.clear(TWO, "user")
    assert limiter.hit(TWO, "user")
    assert storage.reset() == 2
    assert limiter.hit(TWO, "other") and limiter.get_window_stats(TWO, "other").remaining == 1


def test_a_fixed_window_beside_it(server: Server, engine: str) -> None:
    storage: Any = storage_from_string(uri(server), engine=engine)
    fixed, moving = FixedWindowRateLimiter(storage), MovingWindowRateLimiter(storage)
    for limiter in (fixed, moving):
        assert [limiter.hit(TWO, "user") for _ in range(3)] == [True, True, False]


def test_asyncio(server: Server, engine: str) -> None:
    async def scenario() -> None:
        storage: Any = storage_from_string(uri(server, "async+"), engine=engine)
        limiter = AsyncMovingWindow(storage)
        assert [await limiter.hit(TWO, "user") for _ in range(3)] == [True, True, False]
        assert (await limiter.get_window_stats(TWO, "user")).remaining == 0
        await limiter.clear(TWO, "user")
        assert await limiter.hit(TWO, "user", cost=2) and not await limiter.hit(TWO, "user")
        assert await storage.reset() == 1
        assert await limiter.hit(TWO, "user", cost=0) and await limiter.hit(TWO, "user", cost=2)
        await storage.bridge.storage.aclose()

    asyncio.run(scenario())


def test_without_redis(start: Callable[..., Server]) -> None:
    server = start(fresh=True)
    server.close()
    for wrap, error in ((False, redis.ConnectionError), (True, StorageError)):
        limiter = MovingWindowRateLimiter(storage_from_string(uri(server), wrap_exceptions=wrap))
        for _ in range(2):
            with pytest.raises(error):
                limiter.hit(TWO, "user")
            with pytest.raises(error):
                limiter.get_window_stats(TWO, "user")
    local = MovingWindowRateLimiter(storage_from_string(uri(server), fail="local"))
    assert [local.hit(TWO, "user") for _ in range(3)] == [True, True, False]
    assert local.get_window_stats(TWO, "user").remaining == 0
    closed = MovingWindowRateLimiter(storage_from_string(uri(server), fail="closed"))
    assert not closed.hit(TWO, "user")


def test_slowapi(server: Server, engine: str) -> None:
    limiter = SlowLimiter(
        key_func=lambda request: request.headers["X-User"],
        storage_uri=uri(server),
        storage_options={"engine": engine},
        strategy="moving-window",
        headers_enabled=True,
    )
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]

    @app.get("/")
    @limiter.limit("2/minute;100/hour")
    async def route(request: Request) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("hello")

    with web.asgi(app) as client:
        responses = [client.get("/", headers={"X-User": "a"}) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["1", "0", "0"]
        assert 50 < int(responses[2].headers["Retry-After"]) <= 61
        assert client.get("/", headers={"X-User": "b"}).status_code == 200
    assert server.client().keys("RATELIMIT:moving:*")


def flask_app(limiter: FlaskLimiter) -> Flask:
    app = Flask(__name__)
    app.logger.disabled = True
    limiter.init_app(app)

    @app.get("/")
    @limiter.limit("2/minute")
    def route() -> str:
        return "hello"

    return app


def test_flask_limiter(server: Server, engine: str) -> None:
    limiter = FlaskLimiter(
        key_func=lambda: "user",
        storage_uri=uri(server),
        storage_options={"engine": engine},
        strategy="moving-window",
        default_limits=["100/hour"],
        headers_enabled=True,
    )
    with web.wsgi(flask_app(limiter)) as client:
        responses = [client.get("/") for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["1", "0", "0"]
        limiter.reset()
        assert client.get("/").status_code == 200


def test_flask_limiter_falls_back_to_memory(start: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    server = start(fresh=True)
    server.kill()
    limiter = FlaskLimiter(
        key_func=lambda: "user", storage_uri=uri(server), strategy="moving-window", in_memory_fallback=["1/minute"]
    )
    with web.wsgi(flask_app(limiter)) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert redis_ratelimit.limits.PREFIX == "RATELIMIT"
