"""Limits as dependencies of FastAPI.

    @app.get("/protected", dependencies=[Depends(RateLimit("protected", "10/minute"))])

`by` and `cost` are dependencies themselves: they may ask for headers, the body, or the user whom another dependency
found, and what they need appears in the OpenAPI document.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from decimal import Decimal
from inspect import Parameter, Signature
from typing import Any, NamedTuple

from fastapi import Depends, Request

from .clients import client_address
from .limiter import Fail, Problem, Unavailable

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
    """So many units in a window."""

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


class RateLimit:
    """At most so much for each client. Several limits are tiers: `RateLimit("api", "10/second", "500/hour")` admits a
    request only if both do, and counts it once.

    `name`: limits of the same name share one log for each client, so that a request to one counts for the others.
    `by`: whose log; a dependency that returns a string.
    `cost`: what a request weighs, a number or a dependency that returns one.
    `strict`: refused requests count as well, so that only silence helps.
    `fail`: `"open"` or `"closed"`, where it is not as the limiter says.

    As a dependency its value is an `Answer`, or None while Redis is away.
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
        self.name, self.by, self.cost, self.strict, self.fail = name, by, cost, strict, fail
        self.tiers = [Tier.parse(text) for text in limits]
        # Of two tiers with one limit the longer window decides, and the reply tells tiers apart by their limits.
        if not 1 <= len({tier.limit for tier in self.tiers}) == len(limits) <= 8:
            raise ValueError(f"{name}: give 1 to 8 different limits, not {limits}")
        self.__signature__ = _signature([self], cost)

    async def __call__(self, request: Request, cost: int, **who: str) -> Answer | None:
        answers = await _hit(request, [self], list(who.values()), cost, self.fail)
        return answers[0] if answers else None

    def policy(self, tier: Tier) -> str:
        """The name of a tier in headers."""
        return self.name if len(self.tiers) == 1 else f"{self.name}-{tier.window}"

    def binding(self, answer: Answer) -> Tier:
        return next(tier for tier in self.tiers if tier.limit == answer.limit)


class AllOf:
    """Several limits in one step: a request is charged to all of them or to none.

        AllOf(RateLimit("user", "10/second", by=user), RateLimit("team", "1000/minute", by=team))

    Each has a name, one tier and `by`; the other options are for the whole.
    """

    def __init__(self, *limits: RateLimit, cost: int | Callable = 1, fail: Fail | None = None):
        if any(len(limit.tiers) != 1 or limit.cost != 1 or limit.strict or limit.fail for limit in limits):
            raise ValueError("AllOf takes limits of one tier each, without options")
        if not 1 <= len({limit.name for limit in limits}) == len(limits):
            raise ValueError("AllOf takes limits of different names")
        self.limits, self.fail = limits, fail
        self.__signature__ = _signature(limits, cost)

    async def __call__(self, request: Request, cost: int, **who: str) -> list[Answer] | None:
        return await _hit(request, self.limits, list(who.values()), cost, self.fail)


def _signature(limits: Sequence[RateLimit], cost: int | Callable) -> Signature:
    """What FastAPI is to call a limit with."""

    async def constant() -> Any:
        return cost

    def parameter(name: str, **more: Any) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, **more)

    request = parameter("request", annotation=Request)
    weight = parameter("cost", default=Depends(cost if callable(cost) else constant))
    who = [parameter(f"who{i}", default=Depends(limit.by)) for i, limit in enumerate(limits)]
    return Signature([request, weight, *who])


async def _hit(
    request: Request, limits: Sequence[RateLimit], who: Sequence[str], cost: int, fail: Fail | None
) -> list[Answer] | None:
    if "ratelimit" not in request.scope:
        raise RuntimeError("Limiter.install(app) is missing")
    if not 1 <= cost <= MAX_LIMIT:
        raise ValueError(f"a cost of {cost}")
    limiter, headers = request.scope["ratelimit"]
    keys = [f"{limiter.prefix}{limit.name}:{name}" for limit, name in zip(limits, who, strict=True)]
    tiers = [word for limit in limits for tier in limit.tiers for word in (tier.limit, tier.window)]
    options = ["COST", cost] if cost != 1 else []
    try:
        if len(limits) == 1:
            strict = ["STRICT"] if limits[0].strict else []
            replies = [await limiter.call("RATELIMIT.HIT", *keys, *tiers, *options, *strict)]
        else:
            replies = await limiter.call("RATELIMIT.MHIT", len(keys), *keys, *tiers, *options)
    except Unavailable:
        if (fail or limiter.fail) == "closed":
            raise limiter.unavailable() from None
        return None

    answers = [Answer(*reply) for reply in replies]
    policies, states = headers.setdefault("RateLimit-Policy", []), headers.setdefault("RateLimit", [])
    for limit, name, answer in zip(limits, who, answers, strict=True):
        key = b64encode(name.encode()).decode()
        for tier in limit.tiers:
            policies.append(f'"{limit.policy(tier)}";q={tier.limit};w={seconds(tier.milliseconds)}')
        binding = limit.policy(limit.binding(answer))
        states.append(f'"{binding}";r={answer.remaining};t={seconds(answer.next_after)};pk=:{key}:')
    if not answers[0].allowed:
        raise _refusal(limits, answers)
    return answers


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
    """Rounded up: who waits that long is not too early."""
    return -(-milliseconds // 1000)
