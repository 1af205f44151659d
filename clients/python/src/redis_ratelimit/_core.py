"""All of a limiter but input and output.

What a limiter does is a generator: it yields each command that must be sent, and is given the reply or thrown the
error. Two small loops drive it, one for threads in `__init__.py` and one for asyncio in `aio.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from threading import Lock, Semaphore
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ._answer import Answer, Source, binding, from_integers
from ._call import Call, Command, Group, Key, Mode, for_module, for_script
from ._limits import Limits, integer, parse_limits
from ._local import Local
from ._outage import Breaker, Fail, is_outage
from ._refusals import Refusals

Engine: TypeAlias = Literal["auto", "module", "script"]
Charge: TypeAlias = "tuple[Key, Limits] | tuple[Key, Limits, int]"
T = TypeVar("T")
Steps: TypeAlias = Generator[Command, Any, T]
ClientT = TypeVar("ClientT")


class UnsupportedError(NotImplementedError):
    """The engine in use cannot do what was asked, such as waiting without the module."""


def connection_options(retry: Any, connect_timeout: float | None, timeout: float | None) -> dict[str, Any]:
    """For redis-py, with its class for retries. Times are seconds. The limiter itself bounds the number of connections.

    A connection that the server has closed is opened anew. A call that is not answered in time is not repeated.
    """
    return {
        "max_connections": 2**31,
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": timeout,
        "retry": retry(NoBackoff(), 1, (RedisConnectionError,)),
        "retry_on_error": [RedisConnectionError],
    }


class Base(Generic[ClientT]):
    """What both limiters share: settings, and each call as steps."""

    def __init__(
        self,
        url_or_client: str | ClientT,
        engine: Engine = "auto",
        *,
        prefix: Key = "",
        timeout: float = 0.1,
        fail: Fail = "open",
        pause: float = 1.0,
        local_share: float = 1.0,
        refusal_cache: float = 1.0,
        max_keys: int = 10_000,
        max_calls: int = 50,
    ) -> None:
        """A limiter on a URL (`redis://host:6379/0`, `rediss://...`, `unix://...`) or on a client of redis-py: single,
        cluster, or from Sentinel.

        * `engine`: `module`, `script`, or `auto`, which is the module if the server has it.
        * `prefix`: put before every key.
        * `timeout`: seconds to connect, and to wait for a reply, for a URL. A client has its own.
        * `fail`: what happens while Redis is away. `open` allows, `closed` refuses, `local` limits in this process.
        * `pause`: seconds between two tries to reach Redis while it is away.
        * `local_share`: part of each limit that `local` grants this process, above 0, up to 1: 0.25 for four processes.
        * `refusal_cache`: longest time in seconds for which a refusal is remembered in this process; 0 for never.
        * `max_keys`: how many keys are remembered at most, refusals and local logs each.
        * `max_calls`: how many calls may be under way at once, each on a connection; others wait until one is answered.
          Calls with `wait` come on top. With a client of your own, its pool must be as large.
        """
        choices = {"engine": (engine, ("auto", "module", "script")), "fail": (fail, ("open", "closed", "local"))}
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")
        if not 0 < local_share <= 1:
            raise ValueError("local_share must be above 0, and at most 1")
        if timeout <= 0 or max_keys < 1 or max_calls < 1:
            raise ValueError("timeout, max_keys and max_calls must be positive")
        if pause < 0 or refusal_cache < 0:
            raise ValueError("pause and refusal_cache must be at least 0")
        self._url = url_or_client if isinstance(url_or_client, str) else None
        self._client: ClientT = (
            self._connect(url_or_client, timeout, timeout) if isinstance(url_or_client, str) else url_or_client
        )
        self._patient: ClientT | None = None
        self._timeout = timeout
        self._max_calls = max_calls
        self._slots: Any = Semaphore(max_calls)
        self._engine: Engine = engine
        self._found: Engine = engine
        self._prefix = _bytes(prefix)
        self._fail: Fail = fail
        self._breaker = Breaker(pause, fail)
        self._refusals = Refusals(refusal_cache, max_keys)
        self._local = Local(local_share, max_keys)
        self._local_lock = Lock()
        self._monotonic: Callable[[], float] = time.monotonic

    @staticmethod
    def _connect(url: str, connect_timeout: float, timeout: float | None) -> ClientT:
        raise NotImplementedError

    def _client_for(self, command: Command) -> ClientT:
        """A client whose time-out is longer than the answer takes."""
        if not command.patient or self._url is None:
            return self._client
        if self._patient is None:
            self._patient = self._connect(self._url, self._timeout, None)
        return self._patient

    def _check_failures(self, before: int) -> None:
        """For a call that had to wait for others: if one of them found that Redis is away, it need not try as well."""
        if self._breaker.failures != before:
            raise RedisConnectionError("Redis is away")

    @property
    def engine(self) -> Engine:
        """`module` or `script`; `auto` until the first call has found out."""
        return self._found

    # Calls

    def _group(self, key: Key, limits: Limits, cost: int, least: int) -> Group:
        return Group(self._prefix + _bytes(key), parse_limits(limits), integer(cost, least, "cost"))

    def _hit(
        self, key: Key, limits: Limits, cost: int, strict: bool, force: bool, wait: float | None, tiers: bool
    ) -> Steps[Answer]:
        if wait is not None and (strict or force):
            raise ValueError("wait cannot be combined with strict or force")
        if wait is not None and wait <= 0:
            raise ValueError("wait must be a positive number of seconds")
        milliseconds = None if wait is None else max(1, round(wait * 1_000))
        call = Call("HIT", (self._group(key, limits, cost, 1),), _mode(strict, force), tiers, milliseconds)
        return (yield from self._decide(call))[0]

    def _peek(self, key: Key, limits: Limits, cost: int, tiers: bool) -> Steps[Answer]:
        call = Call("PEEK", (self._group(key, limits, cost, 0),), "", tiers)
        return (yield from self._decide(call))[0]

    def _hit_many(self, charges: Iterable[Charge], strict: bool, force: bool, tiers: bool) -> Steps[tuple[Answer, ...]]:
        groups = tuple(self._group(charge[0], charge[1], charge[2] if len(charge) == 3 else 1, 1) for charge in charges)
        if not groups or len({group.key for group in groups}) < len(groups):
            raise ValueError("hit_many needs a key, and each key only once")
        return (yield from self._decide(Call("MHIT", groups, _mode(strict, force), tiers)))

    def _refund(self, key: Key, units: int) -> Steps[int]:
        group = Group(self._prefix + _bytes(key), (), integer(units, 1, "units"))
        self._refusals.forget(group.key)
        try:
            given: int = yield from self._reach(Call("REFUND", (group,)))
            return given
        except _Away:
            if self._fail != "local":
                return 0
            with self._local_lock:
                return self._local.refund(group.key, group.cost, self._milliseconds())

    def _reset(self, keys: tuple[Key, ...]) -> Steps[int]:
        groups = tuple(Group(self._prefix + _bytes(key), (), 1) for key in keys)
        if not groups:
            return 0
        for group in groups:
            self._refusals.forget(group.key)
            with self._local_lock:
                self._local.reset(group.key)
        try:
            count: int = yield from self._reach(Call("RESET", groups))
        except _Away as away:
            # Nobody is asked for admission here, so nothing can stand in for Redis.
            raise away.error from None
        return count

    # How they are decided

    def _decide(self, call: Call) -> Steps[tuple[Answer, ...]]:
        group = call.groups[0]
        asked = self._monotonic()
        remembers = call.kind == "HIT" and not call.mode and call.wait is None
        known = self._refusals.recall(group, call.tiers, asked) if remembers else None
        if known is not None:
            return (known,)
        try:
            answers = call.read((yield from self._reach(call)))
        except _Away:
            return self._without_redis(call)
        if remembers and not answers[0].allowed:
            self._refusals.remember(group, call.tiers, answers[0], asked, self._monotonic())
        return answers

    def _reach(self, call: Call) -> Steps[Any]:
        """The reply to a call. Raises `_Away` if Redis is away."""
        if not self._breaker.admits(self._monotonic()):
            raise _Away(ConnectionError("Redis is away"))
        try:
            reply = yield from self._ask(call)
        except Exception as error:
            if is_outage(error):
                self._breaker.failed(error, self._monotonic())
                raise _Away(error) from error
            if isinstance(error, ResponseError):
                self._answered()
            raise
        self._answered()
        return reply

    def _answered(self) -> None:
        if self._breaker.answered(self._monotonic()):
            with self._local_lock:
                self._local.clear()

    def _ask(self, call: Call) -> Steps[Any]:
        """Asks the engine that the server has. The first call finds out which, and again if the server changes."""
        engine, has_no_module, whole = self._found, False, False
        while True:
            try:
                if engine == "script":
                    if call.wait is not None:
                        raise UnsupportedError("wait needs the module, which this server has not loaded")
                    reply = yield for_script(call, whole=whole)
                else:
                    reply = yield for_module(call)
                    engine = "module"
            except NoScriptError:
                # The server is another one, or was restarted. It may have the module now.
                if whole:
                    raise
                whole = True
                if self._engine == "auto" and not has_no_module:
                    engine = "auto"
            except RedisError as error:
                if engine == "script" or self._engine == "module" or not _is_unknown_command(error):
                    raise
                if call.kind == "REFUND" and (yield from self._has_module()):
                    raise
                engine, has_no_module = "script", True
            else:
                self._found = engine
                return reply

    def _has_module(self) -> Steps[bool]:
        """Older modules have no REFUND, which must not be taken for no module."""
        found: Any = yield Command(("COMMAND INFO", "RATELIMIT.HIT"))
        return any(found.values() if hasattr(found, "values") else found)

    # Without Redis

    def _milliseconds(self) -> int:
        return int(self._monotonic() * 1_000)

    def _without_redis(self, call: Call) -> tuple[Answer, ...]:
        source: Source = self._fail
        policies = [group.limits for group in call.groups]
        if self._fail == "local":
            policies = [tuple(map(self._local.part, limits)) for limits in policies]
            with self._local_lock:
                table = self._local.ask(call, self._milliseconds())
        elif self._fail == "open":
            table = [
                [[1, limit.units, max(0, limit.units - group.cost), 0, 0, 0] for limit in group.limits]
                for group in call.groups
            ]
        else:
            wait = max(1, int(self._breaker.left(self._monotonic()) * 1_000))
            table = [[[0, limit.units, 0, wait, wait, wait] for limit in group.limits] for group in call.groups]
        answers = (
            binding([from_integers(six, policy, source) for six in tiers], keep=call.tiers)
            for tiers, policy in zip(table, policies, strict=True)
        )
        return tuple(answers)


class _Away(Exception):
    """Redis is away; `error` says how."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _bytes(key: Key) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        return key
    raise TypeError("a key must be str or bytes")


def _mode(strict: bool, force: bool) -> Mode:
    if strict and force:
        raise ValueError("strict and force exclude each other")
    return "STRICT" if strict else "FORCE" if force else ""


def _is_unknown_command(error: RedisError) -> bool:
    # The second is what redis-py's cluster client says itself.
    return any(text in str(error).lower() for text in ("unknown command", "doesn't exist in redis commands"))
