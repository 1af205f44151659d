"""Limits as dependencies of FastAPI.

    @app.get("/protected", dependencies=[Depends(RateLimit("protected", "10/minute"))])

`by` and `cost` are dependencies too: they may use headers, the body, or the user that another dependency found. What
they use appears in the OpenAPI document.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from inspect import Parameter, Signature
from typing import Any, NamedTuple, get_args

from fastapi import Depends
from starlette.requests import HTTPConnection

from .clients import called, client_address, name_of
from .limiter import Fail, Limiter, Problem, Unavailable

MAX_LIMIT = 2**53 - 1
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_WINDOW = 3650 * UNITS["d"]
WORDS = {"second": "1s", "minute": "1m", "hour": "1h", "day": "1d"}


class Answer(NamedTuple):
    """The reply of RATELIMIT.HIT. Times are milliseconds."""

    allowed: int
    limit: int
    remaining: int
    retry_after: int
    reset_after: int
    next_after: int


class Tier(NamedTuple):
    """At most `limit` units in a window."""

    limit: int
    window: str
    milliseconds: int

    @classmethod
    def parse(cls, text: str) -> "Tier":
        limit, _, window = text.partition("/")
        window = WORDS.get(window, window)
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", window)
        if match and re.fullmatch(r"0|[1-9][0-9]*", limit) and int(limit) <= MAX_LIMIT:
            length = Decimal(match[1]) * UNITS[match[2]]
            if 1 <= length <= MAX_WINDOW and length == int(length):
                return cls(int(limit), window, int(length))
        raise ValueError(f"{text!r} is not a limit like 10/minute, 500/hour, 5/10s or 20/500ms")


class _Dependency:
    """FastAPI calls equal dependencies once per request, for example one on a router and the same on its route."""

    rate_limits: Sequence["RateLimit"]
    _spec: tuple

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._spec == other._spec

    def __hash__(self) -> int:
        return hash(self._spec)


class RateLimit(_Dependency):
    """A limit for each client. Several limits are tiers: `RateLimit("api", "10/second", "500/hour")` admits a request
    only if both do, and counts it once.

    `name`: limits of the same name share one log for each client, so a request to one counts for the others. On one
    route, equal limits are one limit; different limits of one name are an error when the application starts.
    `by`: whose log it is: a dependency that returns a string or an int, or None for the client's address.
    `cost`: what a request weighs, an integer or a dependency that returns one. 0 charges nothing, is never refused, and
    shows what is left. Anything but an integer from 0 is an error, whatever `fail` says.
    `strict`: refused requests count too, so only waiting helps.
    `fail`: `"open"` or `"closed"`, to override the limiter's.

    As a dependency, its value is an `Answer`, or None while Redis is away.
    """

    def __init__(
        self,
        name: str,
        *limits: str,
        by: Callable = client_address,
        cost: int | Callable = 1,
        strict: bool = False,
        fail: Fail | None = None,
    ):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(f"{name!r} is not a name of letters, digits, '_', '-' and '.'")
        _check_options(name, cost, fail)
        self.name, self.by, self.cost, self.strict, self.fail = name, by, cost, strict, fail
        self.tiers = tuple(Tier.parse(text) for text in limits)
        # Of two tiers with the same limit the longer window decides, and the reply tells tiers apart by limit.
        if not 1 <= len({tier.limit for tier in self.tiers}) == len(limits) <= 8:
            raise ValueError(f"{name}: give 1 to 8 different limits, not {limits}")
        self.rate_limits, self._spec = [self], (name, self.tiers, by, cost, strict, fail)
        self.__signature__ = _signature([self], cost)

    async def __call__(self, request: HTTPConnection, cost: int, **who: Any) -> Answer | None:
        answers = await _hit(request, self, list(who.values()), cost)
        return answers[0] if answers else None

    async def forget(self, request: HTTPConnection, who: Any) -> None:
        """Gives a client the whole limit back. `who` is what `by` returned."""
        limiter, _ = _installed(request)
        with suppress(Unavailable):
            await limiter.call("RATELIMIT.RESET", self.key(limiter, await name_of(who, self.by, request)))

    def key(self, limiter: Limiter, name: str) -> str:
        return f"{limiter.prefix}{self.name}:{name}"

    def policy(self, tier: Tier) -> str:
        """The name of a tier in headers."""
        return self.name if len(self.tiers) == 1 else f"{self.name}-{tier.window}"

    def binding(self, answer: Answer) -> Tier:
        return next(tier for tier in self.tiers if tier.limit == answer.limit)


class AllOf(_Dependency):
    """Several limits in one step: a request is charged to all or none.

        AllOf(RateLimit("user", "10/second", by=user), RateLimit("team", "1000/minute", by=team))

    Each has a name, one tier and `by`; the other options apply to all together.
    """

    def __init__(self, *limits: RateLimit, cost: int | Callable = 1, fail: Fail | None = None):
        if any(len(limit.tiers) != 1 or limit.cost != 1 or limit.strict or limit.fail for limit in limits):
            raise ValueError("AllOf takes limits of one tier each, without options")
        if not 1 <= len({limit.name for limit in limits}) == len(limits):
            raise ValueError("AllOf takes limits of different names")
        _check_options("AllOf", cost, fail)
        self.cost, self.fail = cost, fail
        self.rate_limits, self._spec = limits, (limits, cost, fail)
        self.__signature__ = _signature(limits, cost)

    async def __call__(self, request: HTTPConnection, cost: int, **who: Any) -> list[Answer] | None:
        return await _hit(request, self, list(who.values()), cost)


def _check_options(name: str, cost: Any, fail: Any) -> None:
    if not callable(cost) and not _is_cost(cost):
        raise ValueError(f"{name}: cost is {cost!r}, not an integer from 0 or a dependency")
    if fail not in (None, *get_args(Fail)):
        raise ValueError(f"{name}: fail is {fail!r}, not 'open' or 'closed'")


def _is_cost(cost: Any) -> bool:
    return isinstance(cost, int) and not isinstance(cost, bool) and 0 <= cost <= MAX_LIMIT


def _signature(limits: Sequence[RateLimit], cost: int | Callable) -> Signature:
    """What FastAPI passes to a limit."""

    async def constant() -> Any:
        return cost

    def parameter(name: str, **more: Any) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, **more)

    request = parameter("request", annotation=HTTPConnection)
    weight = parameter("cost", default=Depends(cost if callable(cost) else constant))
    who = [parameter(f"who{i}", default=Depends(limit.by)) for i, limit in enumerate(limits)]
    return Signature([request, weight, *who])


def _installed(request: HTTPConnection) -> tuple[Limiter, dict[str, list[str]]]:
    if "ratelimit" not in request.scope:
        raise RuntimeError("Limiter.install(app) is missing")
    return request.scope["ratelimit"]


async def _hit(
    request: HTTPConnection, dependency: RateLimit | AllOf, who: Sequence[Any], cost: Any
) -> list[Answer] | None:
    # Find every bug of the program before anything is charged.
    limiter, headers = _installed(request)
    limits = dependency.rate_limits
    if not _is_cost(cost):
        source = called(dependency.cost)
        raise ValueError(f"{limits[0].name}: cost={source} returned {cost!r}, not an integer from 0 to {MAX_LIMIT}")
    names = [await name_of(value, limit.by, request) for limit, value in zip(limits, who, strict=True)]
    keys = [limit.key(limiter, name) for limit, name in zip(limits, names, strict=True)]
    tiers = [[word for tier in limit.tiers for word in (tier.limit, tier.window)] for limit in limits]
    options = ["COST", int(cost)] if cost != 1 else []  # redis-py would send the name of an IntEnum
    try:
        if cost == 0:
            peeks = [await limiter.call("RATELIMIT.PEEK", key, *of) for key, of in zip(keys, tiers, strict=True)]
            replies = [_without_the_hit(*peek) for peek in peeks]
        elif len(limits) == 1:
            strict = ["STRICT"] if limits[0].strict else []
            replies = [await limiter.call("RATELIMIT.HIT", *keys, *tiers[0], *options, *strict)]
        else:
            groups = [word for of in tiers for word in ("AND", *of, *options)][1:]
            replies = await limiter.call("RATELIMIT.MHIT", len(keys), *keys, *groups)
    except Unavailable:
        if (dependency.fail or limiter.fail) == "closed":
            raise limiter.unavailable() from None
        return None

    answers = [Answer(*reply) for reply in replies]
    policies, states = headers.setdefault("RateLimit-Policy", []), headers.setdefault("RateLimit", [])
    for limit, name, answer in zip(limits, names, answers, strict=True):
        key = b64encode(name.encode()).decode()
        for tier in limit.tiers:
            policies.append(f'"{limit.policy(tier)}";q={tier.limit};w={seconds(tier.milliseconds)}')
        binding = limit.policy(limit.binding(answer))
        states.append(f'"{binding}";r={answer.remaining};t={seconds(answer.next_after)};pk=:{key}:')
    if not answers[0].allowed:
        raise _refusal(limits, answers)
    return answers


def _without_the_hit(allowed: int, limit: int, remaining: int, _: int, reset_after: int, next_after: int) -> list[int]:
    """PEEK answers for a hit of 1; this takes that hit out. (But reset_after may be too long.)"""
    left = remaining + allowed
    return [1, limit, left, 0, *((0, 0) if left == limit else (reset_after, next_after))]


def _refusal(limits: Sequence[RateLimit], answers: Sequence[Answer]) -> Problem:
    refused = [(limit, answer) for limit, answer in zip(limits, answers, strict=True) if answer.retry_after]
    never = any(answer.retry_after < 0 for _, answer in refused)
    wait = None if never else seconds(max(answer.retry_after for _, answer in refused))
    return Problem(
        429,
        retry_after=wait,
        type="https://iana.org/assignments/http-problem-types#quota-exceeded",
        title="Request cannot be satisfied as assigned quota has been exceeded",
        detail="It asks for more than the limit ever allows." if never else f"Try again in {wait} s.",
        **{"violated-policies": [limit.policy(limit.binding(answer)) for limit, answer in refused]},
    )


def seconds(milliseconds: int) -> int:
    """Rounded up, so that nobody comes back too early."""
    return -(-milliseconds // 1000)
