"""The connection to Redis: calls with a time limit, and a circuit breaker for when there is no answer."""

import asyncio
import logging
from collections.abc import Iterable
from math import ceil
from time import monotonic
from typing import Any, Literal, get_args

from fastapi import FastAPI, HTTPException, Request, routing
from fastapi.responses import JSONResponse
from redis import exceptions as errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

Fail = Literal["open", "closed"]

# Redis is away or cannot serve now. LOADING is a ConnectionError, MASTERDOWN a ClusterDownError; the others have no
# class of their own.
AWAY = (
    *(OSError, errors.ConnectionError, errors.TimeoutError),
    *(errors.OutOfMemoryError, errors.ReadOnlyError, errors.NoPermissionError, errors.ClusterDownError),
)
AWAY_TEXTS = ("BUSY ", "MISCONF ", "NOREPLICAS ", "unknown command")


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
    """Redis did not answer, or was not asked because it did not answer a moment ago."""


class Limiter:
    """What all limits of an application share. In its lifespan, `async with limiter:` closes the connections.

    `fail`: what happens to requests while Redis is away. `"open"` lets them pass without a limit, `"closed"` answers
    503. Each limit can override it.

    `timeout`: seconds that one call may take. After `threshold` failures in a row, Redis is not asked for `pause`
    seconds. Then one request tries again, while the others still go without.
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
        if fail not in get_args(Fail) or not timeout > 0:
            raise ValueError(f"fail is 'open' or 'closed', and timeout above 0: not {fail!r} and {timeout!r}")
        self.prefix, self.fail, self.timeout = prefix, fail, timeout
        self._threshold, self._pause = threshold, pause
        self._away, self._failures, self._open_until = False, 0, 0.0
        self._url, self._connections = url, connections
        self._clients: dict[asyncio.AbstractEventLoop, Redis] = {}

    @property
    def redis(self) -> Redis:
        """Connections belong to an event loop: one per application, and per request for `TestClient` without `with`."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for other in [other for other in self._clients if other.is_closed()]:
                del self._clients[other]
            # No retries: a hit whose reply was lost may have been counted.
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=self._connections,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                encoding_errors="backslashreplace",
            )
            self._clients[loop] = Redis.from_pool(pool)
        return self._clients[loop]

    def install(self, app: FastAPI) -> None:
        app.add_middleware(_Headers, limiter=self)
        app.add_exception_handler(Problem, Problem.answer)

    async def __aenter__(self) -> "Limiter":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    async def call(self, *command: Any) -> Any:
        """The reply to a command, or `Unavailable`. Any other error is a bug or a wrong setting, and is raised, so that
        it does not let requests pass."""
        now = monotonic()
        if now < self._open_until:
            raise Unavailable
        if self._failures >= self._threshold:
            # This call tries again; the others need not wait for it.
            self._open_until = now + self._pause
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self.redis.execute_command(*command)
        except (errors.RedisError, OSError) as raised:
            # An error reply to a new connection's first commands (password, database) is wrapped.
            error = raised.__cause__ if isinstance(raised.__cause__, errors.RedisError) else raised
            if not _is_away(error):
                self._failures, self._open_until = 0, 0.0
                if isinstance(error, errors.AskError):  # also MOVED
                    raise RuntimeError(
                        "the limiter's URL is that of one node of a Redis Cluster, and this key belongs to another "
                        "node; Limiter needs a server that is not in cluster mode"
                    ) from error
                raise
            self._tell(error)
            if not isinstance(error, errors.ResponseError):  # these come at once and make nobody wait
                self._failures += 1
                if self._failures >= self._threshold:
                    self._open_until = monotonic() + self._pause
            raise Unavailable from error
        if self._away:
            log.warning("rate limiter: Redis answers again")
        self._away, self._failures, self._open_until = False, 0, 0.0
        return reply

    def _tell(self, error: Exception) -> None:
        """Logs once per outage."""
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


def _is_away(error: Exception) -> bool:
    if isinstance(error, errors.AuthenticationError | errors.AuthorizationError):  # redis-py: connection errors
        return False
    return isinstance(error, AWAY) or isinstance(error, errors.ResponseError) and str(error).startswith(AWAY_TEXTS)


class _Headers:
    """Adds the headers of limits to every answer, also to that of an exception, which a dependency cannot do. (Not to
    the 500 of an unhandled exception: that is made outside of all middleware.)"""

    def __init__(self, app: ASGIApp, limiter: Limiter):
        self.app, self.limiter, self.checked = app, limiter, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.checked:
            try:
                _check_names(scope["app"].routes)
            except ValueError as error:
                if scope["type"] == "lifespan":
                    await receive()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            self.checked = True
        headers: dict[str, list[str]] = {}

        async def send_with_headers(message: Message) -> None:
            # The second type refuses a WebSocket, the third accepts it.
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                message.setdefault("headers", [])
                for name, values in headers.items():
                    MutableHeaders(scope=message)[name] = ", ".join(values)
            await send(message)

        scope["ratelimit"] = self.limiter, headers
        await self.app(scope, receive, send_with_headers)


def _check_names(routes: Iterable[Any]) -> None:
    """If two limits of one name apply to a request, it would be charged twice in one log. (FastAPI calls equal
    dependencies once.)"""
    # iter_route_contexts knows what routers add to a route; in older versions of FastAPI the route itself does.
    for route in getattr(routing, "iter_route_contexts", iter)(routes):
        _check_names(getattr(route, "routes", None) or ())
        seen: dict[str, Any] = {}
        pending = [getattr(route, "dependant", None)]
        while pending:
            if dependant := pending.pop():
                pending += dependant.dependencies
                for limit in getattr(dependant.call, "rate_limits", ()):
                    if seen.setdefault(limit.name, dependant.call) != dependant.call:
                        raise ValueError(
                            f"{route.path} has two different limits named {limit.name!r}: give one RateLimit both "
                            f"windows, or each a name of its own"
                        )
