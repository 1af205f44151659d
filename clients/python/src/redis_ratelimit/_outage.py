"""Whether Redis answers: a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from threading import Lock
from typing import Literal, TypeAlias

import redis.exceptions as errors

Fail: TypeAlias = Literal["open", "closed", "local"]

log = logging.getLogger("redis_ratelimit")

_AWAY = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
    errors.ClusterError,
    errors.SlotNotCoveredError,
    asyncio.TimeoutError,
    OSError,
)
_MISTAKES = (errors.AuthenticationError, errors.AuthorizationError, errors.ClusterCrossSlotError)
# What a server says that is there but cannot serve, and a cluster's client that finds no node.
_UNABLE = (
    "LOADING",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "TRYAGAIN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "BUSY ",
    "UNBLOCKED",
)
_NO_NODE = "Redis Cluster cannot be connected"
# What a pool of connections says that is smaller than its user needs. Under load that must not let everything pass.
_POOL = "Too many connections"


def is_outage(error: BaseException) -> bool:
    """Whether Redis is away, or cannot serve. Everything else is a mistake of the caller, and raised."""
    # With asyncio, redis-py wraps what a server says to a new connection, for example that the password is wrong.
    if isinstance(error.__cause__, errors.RedisError):
        error = error.__cause__
    if isinstance(error, _MISTAKES) or str(error) == _POOL:
        return False
    return (
        isinstance(error, _AWAY) or isinstance(error, errors.RedisError) and str(error).startswith((*_UNABLE, _NO_NODE))
    )


class Breaker:
    """After a failure nobody asks Redis for `pause` seconds. Then one call tries, and so on until one is answered."""

    def __init__(self, pause: float, fail: Fail) -> None:
        self._pause = pause
        self._fail = fail
        self._since: float | None = None
        self._until = 0.0
        self._lock = Lock()
        self.failures = 0
        """How many calls were not answered, in all."""

    def admits(self, now: float) -> bool:
        """Whether a call may ask Redis. Times are those of the monotonic clock."""
        with self._lock:
            if self._since is None:
                return True
            if now < self._until:
                return False
            self._until = now + self._pause
            return True

    def left(self, now: float) -> float:
        """Seconds until the next try."""
        return max(0.0, self._until - now)

    def failed(self, error: BaseException, now: float) -> None:
        with self._lock:
            begins, self._until = self._since is None, now + self._pause
            self.failures += 1
            if begins:
                self._since = now
        if begins:
            log.warning(
                "Redis is away (%s: %s), limits fail %s until it answers", type(error).__name__, error, self._fail
            )

    def answered(self, now: float) -> bool:
        """True if Redis was away until now."""
        with self._lock:
            since, self._since = self._since, None
        if since is None:
            return False
        log.warning("Redis answers again after %.1f s", now - since)
        return True
