"""Storages for the package `limits`, and so for slowapi and Flask-Limiter: import this module, and name a URI.

    import redis_ratelimit.limits

    Limiter(get_remote_address, storage_uri="redis+ratelimit://localhost:6379", strategy="moving-window")

The moving window is decided by the engine. The other strategies are those of `limits` for Redis.
"""

from __future__ import annotations

import time
from typing import Any, cast

import redis
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.storage import RedisStorage
from redis.asyncio.retry import Retry as AsyncRetry
from redis.retry import Retry

from . import Answer, Engine, Fail, Limit, Limiter, aio
from ._core import connection_options

__all__ = ["AsyncRatelimitStorage", "RatelimitStorage"]

PREFIX = "RATELIMIT"


class RatelimitStorage(RedisStorage):
    """`redis+ratelimit://`, `rediss+ratelimit://` or `redis+ratelimit+unix://`.

    * `engine`: `auto`, `module` or `script`.
    * `fail`: None raises an error while Redis is away, so that slowapi and Flask-Limiter do what they are told. `open`,
      `closed` and `local` are those of `redis_ratelimit.Limiter`.
    * `refusal_cache`: longest time in seconds for which a refusal is remembered in this process.
    * Other options go to redis-py. `socket_timeout` and `socket_connect_timeout` are 0.1 seconds.
    """

    STORAGE_SCHEME = ["redis+ratelimit", "rediss+ratelimit", "redis+ratelimit+unix"]
    PREFIX = PREFIX

    def __init__(
        self,
        uri: str,
        key_prefix: str = PREFIX,
        wrap_exceptions: bool = False,
        engine: Engine = "auto",
        fail: Fail | None = None,
        refusal_cache: float = 1.0,
        **options: Any,
    ) -> None:
        options = {**connection_options(Retry, 0.1, 0.1), **options}
        uri = uri.replace("+ratelimit", "", 1)
        super().__init__(uri, None, key_prefix, wrap_exceptions, **options)  # pyright: ignore[reportUnknownMemberType]
        self._settings = _settings(key_prefix, engine, fail, refusal_cache)
        self._raises = fail is None
        self._limiter = Limiter(self.storage, **self._settings)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if amount == 0:
            return True
        return _checked(self._limiter.hit(key, Limit(limit, seconds=expiry), cost=amount), self._raises).allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        answer = self._limiter.peek(key, Limit(limit, seconds=expiry), cost=0)
        return _window(_checked(answer, self._raises), limit, expiry)

    def clear(self, key: str) -> None:
        super().clear(key)
        self._limiter.reset(key)

    def reset(self) -> int | None:
        # Forgets the refusals as well.
        self._limiter = Limiter(self.storage, **self._settings)
        return super().reset()


class AsyncRatelimitStorage(AsyncRedisStorage):
    """`async+redis+ratelimit://` and so on: see `RatelimitStorage`."""

    STORAGE_SCHEME = ["async+redis+ratelimit", "async+rediss+ratelimit", "async+redis+ratelimit+unix"]
    PREFIX = PREFIX

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        key_prefix: str = PREFIX,
        engine: Engine = "auto",
        fail: Fail | None = None,
        refusal_cache: float = 1.0,
        **options: Any,
    ) -> None:
        options = {**connection_options(AsyncRetry, 0.1, 0.1), **options}
        uri = uri.replace("+ratelimit", "", 1)
        super().__init__(uri, wrap_exceptions, "redispy", key_prefix, **options)
        self._client: Any = cast(Any, self.bridge).get_connection()
        self._settings = _settings(key_prefix, engine, fail, refusal_cache)
        self._raises = fail is None
        self._limiter = aio.Limiter(self._client, **self._settings)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if amount == 0:
            return True
        answer = await self._limiter.hit(key, Limit(limit, seconds=expiry), cost=amount)
        return _checked(answer, self._raises).allowed

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        answer = await self._limiter.peek(key, Limit(limit, seconds=expiry), cost=0)
        return _window(_checked(answer, self._raises), limit, expiry)

    async def clear(self, key: str) -> None:
        await super().clear(key)
        await self._limiter.reset(key)

    async def reset(self) -> int | None:
        self._limiter = aio.Limiter(self._client, **self._settings)
        return await super().reset()


def _settings(key_prefix: str, engine: Engine, fail: Fail | None, refusal_cache: float) -> Any:
    # Keys of their own, as `limits` has other types of values.
    prefix = f"{key_prefix}:moving:"
    return {"prefix": prefix, "engine": engine, "fail": fail or "open", "refusal_cache": refusal_cache}


def _checked(answer: Answer, raises: bool) -> Answer:
    if raises and answer.source == "open":
        raise redis.ConnectionError("Redis is away")
    return answer


def _window(answer: Answer, limit: int, expiry: int) -> tuple[float, int]:
    """When the oldest hit was, and how many units have been used. `limits` adds the window to that time, to tell when
    there is more room."""
    used = answer.limit - answer.remaining
    # Where a share of the limit is granted, what is left of that is left.
    used += limit - answer.limit
    return time.time() + (answer.next_after - expiry if used else 0), used
