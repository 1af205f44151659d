"""What a caller is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ._limits import Limit

Source: TypeAlias = Literal["redis", "cache", "open", "closed", "local"]
_LARGEST = 10**15 - 1  # of integers in structured fields (RFC 8941)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a hit or a peek. Units are ints; times are seconds, from now on, never rounded down."""

    allowed: bool
    """Whether the hit may happen. For several keys, the verdict on all of them."""
    limit: int
    """Units of the limit that binds: of those that refuse that with the longest wait, else with the fewest left."""
    remaining: int
    """Units left in that limit after this call, at least 0."""
    retry_after: float | None
    """0 if allowed; else the exact time until the same call would be, if nothing else happens; None for never."""
    reset_after: float
    """Time until that limit is unused again; 0 if it is now."""
    next_after: float
    """Time until its oldest hit leaves the window, so that there is more room; 0 if it is unused."""
    tiers: tuple[Answer, ...] = ()
    """An answer for each limit of the call, in order, if it asked for them with `tiers=True`."""
    policy: tuple[Limit, ...] = ()
    """The limits of the call."""
    source: Source = "redis"
    """Who answered: `redis`; `cache`, a refusal remembered in this process; the others where Redis is away."""

    def __bool__(self) -> bool:
        return self.allowed

    def names(self, name: str = "") -> list[str]:
        """What headers call the limits of the call: a single one `name` or `default`, one of several `10/1s`, after the
        name and a hyphen if there is one."""
        if len(self.policy) == 1:
            return [name or "default"]
        return [f"{name}-{limit}" if name else str(limit) for limit in self.policy]

    def headers(self, *, name: str = "", legacy: bool = False) -> dict[str, str]:
        """Header fields for the response, as draft-ietf-httpapi-ratelimit-headers-10 defines them.

        `RateLimit-Policy` names all limits of the call, `RateLimit` the one that binds, or all if the call asked for
        `tiers`. A refusal has `Retry-After`, unless it is for ever. See `names` for `name`. `legacy=True` adds
        `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds since the epoch). Times are
        rounded up to seconds.
        """
        names = self.names(name)
        rows = list(zip(names, self.policy, self.tiers, strict=True)) if self.tiers else [self._binding(names)]
        fields = {
            "RateLimit-Policy": ", ".join(
                f'"{title}";q={min(limit.units, _LARGEST)};w={-(-limit.milliseconds // 1000)}'
                for title, limit in zip(names, self.policy, strict=True)
            ),
            "RateLimit": ", ".join(
                f'"{title}";r={min(answer.remaining, _LARGEST)};t={seconds(answer.next_after)}'
                for title, _, answer in rows
            ),
        }
        if not self.allowed and self.retry_after is not None:
            fields["Retry-After"] = str(seconds(self.retry_after))
        if legacy:
            fields["X-RateLimit-Limit"] = str(self.limit)
            fields["X-RateLimit-Remaining"] = str(self.remaining)
            fields["X-RateLimit-Reset"] = str(seconds(time.time() + self.reset_after))
        return fields

    def _binding(self, names: Sequence[str]) -> tuple[str, Limit, Answer]:
        """The limit that binds. Of two with the same units it may be the other one; `tiers=True` tells them apart."""
        pairs = zip(names, self.policy, strict=True)
        return next((title, limit, self) for title, limit in pairs if limit.units == self.limit)

    def later(self, elapsed: float) -> Answer:
        """The same refusal, so many seconds later, as it is remembered in this process."""

        def left(after: float) -> float:
            return max(0.0, after - elapsed)

        return replace(
            self,
            retry_after=None if self.retry_after is None else left(self.retry_after),
            reset_after=left(self.reset_after),
            next_after=left(self.next_after),
            tiers=tuple(tier.later(elapsed) for tier in self.tiers),
            source="cache",
        )


def seconds(duration: float) -> int:
    """Whole seconds, rounded up."""
    # Milliseconds first, because they are exact: a float may be a little above the second that it means.
    return -(-round(duration * 1_000) // 1_000)


def from_integers(six: Sequence[int], policy: tuple[Limit, ...], source: Source = "redis") -> Answer:
    """The answer that six integers of a reply tell."""
    allowed, limit, remaining, retry, reset, following = six
    return Answer(
        allowed=bool(allowed),
        limit=limit,
        remaining=remaining,
        retry_after=None if retry < 0 else retry / 1_000,
        reset_after=reset / 1_000,
        next_after=following / 1_000,
        policy=policy,
        source=source,
    )


def binding(tiers: Sequence[Answer], *, keep: bool = True) -> Answer:
    """The tier that binds, with all of them to `keep`: see `Answer.limit`. Among equals it is the earlier one."""
    refused = any(tier.retry_after != 0 for tier in tiers)

    def rank(tier: Answer) -> float:
        if not refused:
            return -tier.remaining
        return float("inf") if tier.retry_after is None else tier.retry_after

    return replace(max(tiers, key=rank), tiers=tuple(tiers) if keep else ())
