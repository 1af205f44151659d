"""What a limit is, and how it is spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

MAX_UNITS = 2**53 - 1
MAX_WINDOW = 3650 * 86_400_000
MAX_TIERS = 8

_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 604_800_000),
}
_TEXT = re.compile(r"\s*([0-9]+)\s*(?:/|\bper\b)\s*([0-9]+(?:\.[0-9]+)?)?\s*([a-z]+)\s*", re.ASCII)


def integer(value: object, least: int, name: str) -> int:
    """Checks a number of units: `TypeError` unless it is an int, `ValueError` outside of its range."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int")
    if not least <= value <= MAX_UNITS:
        raise ValueError(f"{name} must be from {least} to 2**53 - 1")
    return int(value)  # redis-py would send the name of an IntEnum


@dataclass(frozen=True, slots=True, init=False)
class Limit:
    """At most `units` in any window of a length: `Limit(10, seconds=1)`.

    `units` is an int from 0 (refuse always) to 2**53 - 1. The parts of the window are added; it is a whole number of
    milliseconds, from 1 ms to 3650 days. `TypeError` or `ValueError` otherwise.
    """

    units: int
    milliseconds: int

    def __init__(
        self,
        units: int,
        *,
        milliseconds: int = 0,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
    ) -> None:
        parts = ((milliseconds, 1), (seconds, 1_000), (minutes, 60_000), (hours, 3_600_000), (days, 86_400_000))
        # A float stands for the decimal that it prints as: 0.3 is 300 ms.
        window = sum((Fraction(str(length)) * unit for length, unit in parts), Fraction(0))
        if window.denominator != 1 or not 1 <= window <= MAX_WINDOW:
            raise ValueError("a window must be a whole number of milliseconds, from 1 ms to 3650 days")
        object.__setattr__(self, "units", integer(units, 0, "a limit"))
        object.__setattr__(self, "milliseconds", int(window))

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Reads `10/second`, `100 per minute`, `5/30s` or `20/1.5h`. `ValueError` if it is none of these."""
        match = _TEXT.fullmatch(text.lower())
        unit = _UNITS.get(match[3]) if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a limit like 10/second, 100 per minute or 5/30s")
        window = Fraction(match[2] or 1) * unit
        if window.denominator != 1 or window > MAX_WINDOW:
            raise ValueError("a window must be a whole number of milliseconds, from 1 ms to 3650 days")
        return cls(int(match[1]), milliseconds=int(window))

    @property
    def seconds(self) -> float:
        """The window in seconds."""
        return self.milliseconds / 1_000

    def __str__(self) -> str:
        """As in `10/1s`, `5/30s` or `20/1500ms`."""
        for suffix, unit in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
            if self.milliseconds % unit == 0:
                return f"{self.units}/{self.milliseconds // unit}{suffix}"
        return f"{self.units}/{self.milliseconds}ms"


Limits: TypeAlias = "str | Limit | Iterable[str | Limit]"
"""One limit, or several: `"10/second"`, `"10/second;500/hour"`, `Limit(10, seconds=1)`, or a list of these."""


def parse_limits(limits: Limits) -> tuple[Limit, ...]:
    """All limits of a call, from 1 to 8."""
    if isinstance(limits, (str, Limit)):
        return _parse((limits,))
    return _parse(tuple(limits))


@lru_cache(maxsize=1024)
def _parse(limits: tuple[str | Limit, ...]) -> tuple[Limit, ...]:
    found: list[Limit] = []
    for limit in limits:
        if isinstance(limit, str):
            found.extend(map(Limit.parse, limit.split(";")))
        else:
            found.append(limit)
    if not all(isinstance(limit, Limit) for limit in found):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("a limit must be a str or a Limit")
    if not 1 <= len(found) <= MAX_TIERS:
        raise ValueError(f"from 1 to {MAX_TIERS} limits are allowed, not {len(found)}")
    return tuple(found)
