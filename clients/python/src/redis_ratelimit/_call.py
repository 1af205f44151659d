"""One call of a limiter, and how each engine is asked it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

from ._answer import Answer, Source, binding, from_integers
from ._limits import Limit

Key: TypeAlias = "str | bytes"
Kind: TypeAlias = Literal["HIT", "PEEK", "MHIT", "REFUND", "RESET"]
Mode: TypeAlias = Literal["", "STRICT", "FORCE"]

SUFFIX = b":ratelimit"
"""Added to a key by the script, so that its logs and those of the module are never at the same key."""


@dataclass(frozen=True, slots=True)
class Group:
    """What one key is charged."""

    key: bytes
    limits: tuple[Limit, ...]
    cost: int


@dataclass(frozen=True, slots=True)
class Call:
    kind: Kind
    groups: tuple[Group, ...]
    mode: Mode = ""
    tiers: bool = False
    wait: int | None = None
    """Milliseconds."""

    def read(self, reply: Any, source: Source = "redis") -> tuple[Answer, ...]:
        """The answers in a reply to HIT, PEEK or MHIT, one for each group."""
        replies = reply if self.kind == "MHIT" else [reply]
        return tuple(self._read(one, group.limits, source) for one, group in zip(replies, self.groups, strict=True))

    def _read(self, reply: Any, limits: tuple[Limit, ...], source: Source) -> Answer:
        if not self.tiers:
            return from_integers(reply, limits, source)
        return binding([from_integers(six, limits, source) for six in reply])

    def options(self) -> list[str]:
        return [*filter(None, [self.mode]), *(["WITHTIERS"] if self.tiers else [])]


@dataclass(frozen=True, slots=True)
class Command:
    """What is sent to the server."""

    arguments: tuple[str | bytes | int, ...]
    patient: bool = False
    """Whether the answer may take longer than the time-out."""


def for_module(call: Call) -> Command:
    keys = [group.key for group in call.groups]
    head: list[str | bytes | int] = [f"RATELIMIT.{call.kind}"]
    if call.kind == "RESET":
        return Command((*head, *keys))
    if call.kind == "REFUND":
        return Command((*head, *keys, "COST", call.groups[0].cost))
    head += [len(keys), *keys] if call.kind == "MHIT" else keys
    wait = [] if call.wait is None else ["WAIT", f"{call.wait}ms"]
    return Command((*head, *_groups(call, "ms"), *call.options(), *wait), patient=call.wait is not None)


def for_script(call: Call, *, whole: bool) -> Command:
    """`whole` sends the script itself and not only its digest, so that the server knows it from then on."""
    keys = [group.key + SUFFIX for group in call.groups]
    if call.kind == "RESET":
        return Command(("UNLINK", *keys))
    arguments: Sequence[str | int]
    if call.kind == "REFUND":
        arguments = ["REFUND", "COST", call.groups[0].cost]
    else:
        arguments = [*_groups(call, ""), *(["PEEK"] if call.kind == "PEEK" else []), *call.options()]
    source, digest = script()
    return Command(("EVAL" if whole else "EVALSHA", source if whole else digest, len(keys), *keys, *arguments))


def _groups(call: Call, suffix: str) -> list[str | int]:
    words: list[str | int] = []
    for group in call.groups:
        if words:
            words.append("AND")
        for limit in group.limits:
            words += [limit.units, f"{limit.milliseconds}{suffix}"]
        if group.cost != 1:
            words += ["COST", group.cost]
    return words


@cache
def script() -> tuple[str, str]:
    """The script, and its digest."""
    source = files("redis_ratelimit").joinpath("ratelimit.lua").read_text("utf-8")
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
