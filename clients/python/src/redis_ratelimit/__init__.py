"""Exact rate limits in Redis and Valkey.

    from redis_ratelimit import Limiter

    limiter = Limiter("redis://localhost:6379")
    answer = limiter.hit("user:42", "10/second", "500/hour")

`redis_ratelimit.aio.Limiter` is the same for asyncio.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, TypeAlias, cast

import redis
from redis.retry import Retry

from ._answer import Answer
from ._call import Key
from ._core import Base, Charge, Engine, Steps, T, UnsupportedError, connection_options
from ._limits import Limit, Limits
from ._outage import Fail

__all__ = ["Answer", "Charge", "Engine", "Fail", "Key", "Limit", "Limiter", "Limits", "UnsupportedError"]

Client: TypeAlias = "redis.Redis | redis.RedisCluster"


class Limiter(Base[Client]):
    """A rate limiter for threads. Share one in the whole process."""

    def hit(
        self,
        key: Key,
        *limits: str | Limit,
        cost: int = 1,
        strict: bool = False,
        force: bool = False,
        wait: float | None = None,
        tiers: bool = False,
    ) -> Answer:
        """Records a hit on `key` if every limit allows it.

        * `limits`: from 1 to 8, such as `"10/second"`, `"10/second;500/hour"` or `Limit(10, seconds=1)`.
        * `cost`: units, from 1 to 2**53 - 1.
        * `strict`: a refused hit is recorded as well, so that only silence helps.
        * `force`: the hit is recorded whatever the limits say; `allowed` tells whether it fitted.
        * `wait`: seconds for which the call may wait for its turn (the module only).
        * `tiers`: the answer has the state of each limit, in `tiers`.

        Raises `ValueError` or `TypeError` for wrong arguments, `UnsupportedError` for what the engine cannot do, and
        `redis.ResponseError` for what the server calls a mistake. It does not raise because Redis is away: see `fail`.
        """
        return self._run(self._hit(key, limits, cost, strict, force, wait, tiers))

    def peek(self, key: Key, *limits: str | Limit, cost: int = 1, tiers: bool = False) -> Answer:
        """What `hit` would answer. It changes nothing. `cost=0` describes the log as it is."""
        return self._run(self._peek(key, limits, cost, tiers))

    def hit_many(
        self, charges: Iterable[Charge], *, strict: bool = False, force: bool = False, tiers: bool = False
    ) -> tuple[Answer, ...]:
        """Charges several keys in one step, all or none: `[(key, limits), (key, limits, cost), ...]`.

        There is an answer for each key. In all of them `allowed` is the verdict on the call. In a cluster the keys must
        share a hash tag.
        """
        return self._run(self._hit_many(charges, strict, force, tiers))

    def refund(self, key: Key, units: int = 1) -> int:
        """Takes the newest units back, and returns how many. Refund only what was allowed."""
        return self._run(self._refund(key, units))

    def reset(self, *keys: Key) -> int:
        """Forgets the hits of keys, and returns how many were known. It raises if Redis is away."""
        return self._run(self._reset(keys))

    def close(self) -> None:
        """Closes the connections of a limiter that was made with a URL."""
        if self._url is not None:
            self._client.close()
        if self._patient is not None:
            self._patient.close()

    def __enter__(self) -> Limiter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _connect(url: str, connect_timeout: float, timeout: float | None) -> Client:
        options = connection_options(Retry, connect_timeout, timeout)
        client: Client = cast(Any, redis.Redis).from_url(url, **options)
        return client

    def _run(self, steps: Steps[T]) -> T:
        try:
            command = next(steps)
            while True:
                failures = self._breaker.failures
                try:
                    with nullcontext() if command.patient else self._slots:
                        self._check_failures(failures)
                        reply: Any = cast(Any, self._client_for(command)).execute_command(*command.arguments)
                except Exception as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
