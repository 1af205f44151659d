"""What the frameworks share: what a rule is, the key of a client, the headers, and the answer to a refused request."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from struct import unpack
from typing import Any, Generic, TypeAlias, TypeVar, cast

from ._answer import Answer, seconds
from ._limits import Limit, integer, parse_limits

MAX_NAME = 128  # bytes of a client's name in a key; a longer one is hashed

Status: TypeAlias = "int | Collection[int] | Callable[[int], object]"
"""Which answers: a status, several, or a function of the status."""
LimiterT = TypeVar("LimiterT")


class Rule(Generic[LimiterT]):
    """What a route or an application asks of each request."""

    def __init__(
        self,
        name: str,
        limits: Sequence[str | Limit | Callable[..., Any]],
        by: Callable[..., Any],
        cost: int | Callable[..., Any],
        strict: bool,
        refund_if: Status,
        limiter: LimiterT | None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(f"{name!r} is not a name of letters, digits, '_', '-' and '.'")
        self.name, self.by, self.strict, self.limiter = name, by, strict, limiter
        self.limits: tuple[Limit, ...] | Callable[..., Any]
        if len(limits) == 1 and callable(limits[0]):
            self.limits = limits[0]
        else:
            self.limits = parse_limits(cast("Sequence[str | Limit]", limits))  # which it checks
        self.cost = cost if callable(cost) else integer(cost, 0, f"{name}: cost")
        self.refund_if = refund_if
        if isinstance(refund_if, int):
            refund_if = (refund_if,)
        self.refunds: Callable[[int], object] = refund_if if callable(refund_if) else frozenset(refund_if).__contains__


@dataclass(frozen=True, slots=True)
class Demand(Generic[LimiterT]):
    """What one rule asks of one request."""

    limiter: LimiterT
    rule: Rule[LimiterT]
    key: str
    limits: tuple[Limit, ...]
    cost: int


@dataclass(slots=True)
class Bill(Generic[LimiterT]):
    """What one request was charged. It hangs on the request while that is served."""

    limiter: LimiterT | None
    items: list[tuple[Demand[LimiterT], Answer]] = field(default_factory=list[tuple[Demand[LimiterT], Answer]])
    settled: bool = False

    def demand(self, rule: Rule[LimiterT], client: object, limits: Any, cost: object) -> Demand[LimiterT]:
        """What to ask for. Every fault of the program is found here, before anything is charged."""
        limiter = rule.limiter or self.limiter
        if limiter is None:
            raise RuntimeError(f"{rule.name}: no limiter is installed, and the limit names none")
        name = key(rule.name, client)
        if any(known.key == name and known.limiter is limiter for known, _ in self.items):
            raise RuntimeError(
                f"one request would be charged twice at {name!r}: give one limit both windows, or each its own name"
            )
        return Demand(limiter, rule, name, parse_limits(limits), integer(cost, 0, f"{rule.name}: cost"))

    def headers(self) -> dict[str, str]:
        """Of all limits of the request, and `Retry-After` if one refuses and waiting helps."""
        found: dict[str, list[str]] = {}
        for demand, answer in self.items:
            for name, value in answer.headers(name=demand.rule.name).items():
                # While Redis is away nobody knows what is left.
                if name != "Retry-After" and not (name == "RateLimit" and answer.source in ("open", "closed")):
                    found.setdefault(name, []).append(value)
        fields = {name: ", ".join(values) for name, values in found.items()}
        waits = [answer.retry_after for _, answer in self.items if not answer.allowed]
        if waits and None not in waits:
            fields["Retry-After"] = str(max(seconds(wait) for wait in waits if wait is not None))
        return fields

    def refunds(self, status: int) -> list[tuple[LimiterT, str, int]]:
        """What an answer with this status gives back: of what was allowed and counted, where the rule says so. Once."""
        if self.settled:
            return []
        self.settled = True
        return [
            (demand.limiter, demand.key, demand.cost)
            for demand, answer in self.items
            if answer.allowed and answer.source != "open" and demand.cost > 0 and demand.rule.refunds(status)
        ]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was refused."""

    answers: Mapping[str, Answer]
    """By the names of the limits. Each has `retry_after` above 0, or None for never."""

    @classmethod
    def of(cls, demands: Sequence[Demand[Any]], answers: Sequence[Answer]) -> Refusal:
        pairs = zip(demands, answers, strict=True)
        return cls({demand.rule.name: answer for demand, answer in pairs if answer.retry_after != 0})

    @property
    def retry_after(self) -> float | None:
        """Seconds until the request would be allowed, if nothing else happens; None for never."""
        waits = [answer.retry_after for answer in self.answers.values()]
        return None if None in waits else max(wait for wait in waits if wait is not None)

    @property
    def status(self) -> int:
        """429, or 503 where Redis is away and the limiter says `fail="closed"`: that is not the client's fault."""
        return 503 if any(answer.source == "closed" for answer in self.answers.values()) else 429

    @property
    def problem(self) -> dict[str, object]:
        """As RFC 9457 and draft-ietf-httpapi-ratelimit-headers-10 have it."""
        if self.status == 503:
            detail = "The rate limiter does not answer."
            return {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail}
        wait = self.retry_after
        return {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": "No wait helps." if wait is None else f"Try again in {seconds(wait)} s.",
            "violated-policies": [name for pair in self.answers.items() for name in _violated(*pair)],
        }

    @property
    def body(self) -> bytes:
        """The problem as JSON."""
        return json.dumps(self.problem).encode()


PROBLEM = "application/problem+json"


def _violated(name: str, answer: Answer) -> list[str]:
    """The names, as in the headers, of the limits that refuse."""
    if not answer.tiers:
        return [name]
    names = answer.names(name)
    return [title for title, tier in zip(names, answer.tiers, strict=True) if tier.retry_after != 0]


def key(name: str, client: object) -> str:
    """The key of a client's log. A long name of a client is hashed."""
    # Other types have no text, or another one for each object. A log for each request would limit nobody.
    if not isinstance(client, (str, int)) or isinstance(client, bool):
        raise TypeError(f"{name}: by returned a {type(client).__name__}, not a str, an int or None")
    encoded = str(client).encode(errors="backslashreplace")  # JSON may contain half a surrogate pair
    text = hashlib.sha256(encoded).hexdigest() if len(encoded) > MAX_NAME else encoded.decode()
    return f"rl:{name}:{text}"


def address_name(host: str | None) -> str:
    """An address as the name of a client: of IPv6 the /64, as a subscriber has at least that many addresses; `::ffff:`
    addresses as IPv4. What is no address, such as a unix socket's, stays what it is."""
    if not host:
        return "unknown"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            # Zeros are written out, as the other clients do, so that all use the same key.
            return ":".join(f"{group:x}" for group in unpack(">4H", address.packed[:8])) + "::/64"
        address = address.ipv4_mapped
    return str(address)


def digest(value: object, secret: str) -> str:
    """A name that tells nothing without the secret, not even to somebody who tries all short values."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"hashed takes a str, an int or None, not a {type(value).__name__}")
    return hmac.digest(secret.encode(), str(value).encode(errors="backslashreplace"), "sha256")[:16].hex()
