"""The way to Redis: one call within a time limit, and a circuit breaker for when there is no answer."""

import asyncio
import logging
from math import ceil
from time import monotonic
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

Fail = Literal["open", "closed"]


class Problem(HTTPException):
    """An error whose body is application/problem+json (RFC 9457)."""

    def __init__(self, status: int, *, retry_after: int | None = None, **members: Any):
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, members.get("detail"), headers)
        self.body = {"status": status, **members}

    @staticmethod
    async def answer(_: Request, problem: "Problem") -> JSONResponse:
        return JSONResponse(problem.body, problem.status_code, problem.headers, "application/problem+json")


class Unavailable(Exception):
    """Redis gave no answer, or was not asked because it gave none a moment ago."""


class Limiter:
    """What all limits of an application share. In its lifespan, `async with limiter:` closes the connections.

    `fail`: what becomes of requests while Redis is away. `"open"` lets them pass unlimited, `"closed"` turns them away
    with 503. A limit may say otherwise for itself.

    `timeout`: seconds that one call may take. After `threshold` failures in a row, Redis is left alone for `pause`
    seconds; then one request tries again, while the others still do without.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "rl:",
        fail: Fail = "open",
        timeout: float = 1.0,
        threshold: int = 3,
        pause: float = 1.0,
        connections: int = 50,
    ):
        self.prefix, self.fail, self.timeout = prefix, fail, timeout
        self._threshold, self._pause = threshold, pause
        self._away, self._failures, self._open_until = False, 0, 0.0
        # No retries: a hit whose reply was lost may have been counted.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="backslashreplace",
        )
        self.redis = Redis.from_pool(pool)

    def install(self, app: FastAPI) -> None:
        app.add_middleware(_Headers, limiter=self)
        app.add_exception_handler(Problem, Problem.answer)

    async def __aenter__(self) -> "Limiter":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    async def call(self, *command: Any) -> Any:
        """The reply to a command, or `Unavailable`."""
        now = monotonic()
        if now < self._open_until:
            raise Unavailable
        if self._failures >= self._threshold:
            # This call finds out, and the others need not wait for it.
            self._open_until = now + self._pause
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self.redis.execute_command(*command)
        except ResponseError as error:
            # A server without the module, or out of memory. It limits nobody, but it costs no time either.
            self._tell(error)
            raise Unavailable from error
        except (RedisError, OSError, TimeoutError) as error:
            self._tell(error)
            self._failures += 1
            if self._failures >= self._threshold:
                self._open_until = monotonic() + self._pause
            raise Unavailable from error
        if self._away:
            log.warning("rate limiter: Redis answers again")
        self._away, self._failures, self._open_until = False, 0, 0.0
        return reply

    def _tell(self, error: Exception) -> None:
        """Once in an outage."""
        if not self._away:
            log.error("rate limiter: no answer from Redis, limits fail %s: %s", self.fail, str(error) or "timeout")
        self._away = True

    def unavailable(self) -> Problem:
        """For limits that fail closed."""
        return Problem(
            503,
            retry_after=ceil(self._pause),
            type="about:blank",
            title="Service Unavailable",
            detail="The rate limiter does not answer.",
        )


class _Headers:
    """Adds the headers of limits to every answer, also to one that an exception makes, which a dependency cannot. (Not
    to the 500 for an exception that nobody handles: it is made outside of all middleware.)"""

    def __init__(self, app: ASGIApp, limiter: Limiter):
        self.app, self.limiter = app, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, list[str]] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, values in headers.items():
                    MutableHeaders(scope=message)[name] = ", ".join(values)
            await send(message)

        scope["ratelimit"] = self.limiter, headers
        await self.app(scope, receive, send_with_headers)
