"""The limiter for asyncio. See `redis_ratelimit.Limiter`, which is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, TypeAlias, cast

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry

from ._answer import Answer
from ._call import Command, Key
from ._core import Base, Charge, Steps, T, connection_options
from ._limits import Limit

__all__ = ["Limiter"]

Client: TypeAlias = "Redis | RedisCluster"


_LOOKS = 50  # turns of the event loop; connecting takes about twenty


class Limiter(Base[Client]):
    """A rate limiter for asyncio. Share one in the whole event loop."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def hit(
        self,
        key: Key,
        *limits: str | Limit,
        cost: int = 1,
        strict: bool = False,
        force: bool = False,
        wait: float | None = None,
        tiers: bool = False,
    ) -> Answer:
        """See `redis_ratelimit.Limiter.hit`."""
        return await self._run(self._hit(key, limits, cost, strict, force, wait, tiers))

    async def peek(self, key: Key, *limits: str | Limit, cost: int = 1, tiers: bool = False) -> Answer:
        """See `redis_ratelimit.Limiter.peek`."""
        return await self._run(self._peek(key, limits, cost, tiers))

    async def hit_many(
        self, charges: Iterable[Charge], *, strict: bool = False, force: bool = False, tiers: bool = False
    ) -> tuple[Answer, ...]:
        """See `redis_ratelimit.Limiter.hit_many`."""
        return await self._run(self._hit_many(charges, strict, force, tiers))

    async def refund(self, key: Key, units: int = 1) -> int:
        """See `redis_ratelimit.Limiter.refund`."""
        return await self._run(self._refund(key, units))

    async def reset(self, *keys: Key) -> int:
        """See `redis_ratelimit.Limiter.reset`."""
        return await self._run(self._reset(keys))

    async def close(self) -> None:
        """Closes the connections of a limiter that was made with a URL."""
        if self._url is not None:
            await self._client.aclose()
        if self._patient is not None:
            await self._patient.aclose()

    async def __aenter__(self) -> Limiter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _client_for(self, command: Command) -> Client:
        # Connections belong to an event loop, and test clients of frameworks run requests in several.
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._url is not None:
                self._client, self._patient = self._connect(self._url, self._timeout, self._timeout), None
            self._loop, self._slots = loop, asyncio.Semaphore(self._max_calls)
        return super()._client_for(command)

    @staticmethod
    def _connect(url: str, connect_timeout: float, timeout: float | None) -> Client:
        # With a time-out for the answer, `_ask_in_time` keeps both.
        options = connection_options(Retry, None if timeout else connect_timeout, None)
        client: Client = cast(Any, Redis).from_url(url, **options)
        return client

    async def _ask_in_time(self, client: Any, command: Command) -> Any:
        call = client.execute_command(*command.arguments)
        if self._url is None or command.patient:
            return await call
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait((task,), timeout=self._timeout)
            # A busy event loop may not have looked yet at what has arrived. A flood must not be taken for an outage.
            for _ in range(_LOOKS):
                if task.done():
                    break
                await asyncio.sleep(0)
            if not task.done():
                raise redis.TimeoutError(f"no answer within {self._timeout} s")
            return task.result()
        finally:
            task.cancel()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            command = next(steps)
            while True:
                failures = self._breaker.failures
                client: Any = self._client_for(command)
                try:
                    async with nullcontext() if command.patient else self._slots:
                        self._check_failures(failures)
                        reply: Any = await self._ask_in_time(client, command)
                except Exception as error:
                    command = steps.throw(error)
                else:
                    command = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
