"""Exact limits in this process, for the time when Redis is away."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ._call import Call, Group
from ._limits import Limit


@dataclass(slots=True)
class _Log:
    """Hits of one key: their times in milliseconds, and the total of units before the first and after each."""

    times: list[int] = field(default_factory=list[int])
    totals: list[int] = field(default_factory=lambda: [0])
    kept: int = 0
    """The longest window."""

    def first(self, now: int, window: int) -> int:
        return bisect_right(self.times, now - window)

    def used(self, now: int, window: int) -> int:
        return self.totals[-1] - self.totals[self.first(now, window)]

    def add(self, now: int, cost: int) -> None:
        self.times.append(now)
        self.totals.append(self.totals[-1] + cost)

    def keep(self, now: int, window: int) -> None:
        """Drops the hits that have left the longest window, once they are half of all."""
        self.kept = max(self.kept, window)
        first = self.first(now, self.kept)
        if first > len(self.times) // 2:
            del self.times[:first], self.totals[:first]

    def refund(self, units: int, now: int) -> int:
        given = min(units, self.used(now, self.kept))
        left = self.totals[-1] - given
        keep = bisect_right(self.totals, left) - 1
        del self.times[keep:], self.totals[keep + 1 :]
        if left > self.totals[-1]:
            self.add(now, left - self.totals[-1])
        return given


class Local:
    """Decides like the server, by `share` of each limit (rounded down, but at least 1), on at most `size` keys."""

    def __init__(self, share: float, size: int) -> None:
        self._share = share
        self._size = size
        self._logs: OrderedDict[bytes, _Log] = OrderedDict()

    def clear(self) -> None:
        self._logs.clear()

    def reset(self, key: bytes) -> bool:
        return self._logs.pop(key, None) is not None

    def refund(self, key: bytes, units: int, now: int) -> int:
        log = self._logs.get(key)
        return log.refund(units, now) if log else 0

    def ask(self, call: Call, now: int) -> list[list[list[int]]]:
        """The six integers of each tier of each key. `now` is in milliseconds."""
        logs = [self._logs.get(group.key) or _Log() for group in call.groups]
        rooms = [self._has_room(log, group, now) for log, group in zip(logs, call.groups, strict=True)]
        allowed = all(rooms)
        replies: list[list[list[int]]] = []
        for log, group, room in zip(logs, call.groups, rooms, strict=True):
            possible = all(group.cost <= self.part(limit).units for limit in group.limits)
            refused = not allowed and not room
            stored = group.cost > 0 and (
                allowed or call.mode == "FORCE" or call.mode == "STRICT" and refused and possible
            )
            if call.kind == "PEEK" and stored:
                log = _Log(log.times.copy(), log.totals.copy())
            if stored:
                log.add(now, group.cost)
            if stored and call.kind != "PEEK":
                self._logs[group.key] = log
                self._logs.move_to_end(group.key)
                log.keep(now, max(limit.milliseconds for limit in group.limits))
                if len(self._logs) > self._size:
                    self._logs.popitem(last=False)
            replies.append([self._six(log, group.cost, limit, now, allowed, refused) for limit in group.limits])
        return replies

    def part(self, limit: Limit) -> Limit:
        """What this process grants of a limit."""
        if self._share == 1:
            return limit
        return Limit(max(int(limit.units * self._share), min(limit.units, 1)), milliseconds=limit.milliseconds)

    def _has_room(self, log: _Log, group: Group, now: int) -> bool:
        rooms = (group.cost <= self.part(limit).units - log.used(now, limit.milliseconds) for limit in group.limits)
        return group.cost == 0 or all(rooms)

    def _six(self, log: _Log, cost: int, limit: Limit, now: int, allowed: bool, refused: bool) -> list[int]:
        units, window = self.part(limit).units, limit.milliseconds
        first, used = log.first(now, window), log.used(now, window)
        live: Sequence[int] = log.times[first : first + 1] + log.times[-1:] if used else ()
        retry = 0
        if refused and cost > units:
            retry = -1
        elif refused and used + cost > units:
            # The hit with which enough units have left.
            leaving = bisect_left(log.totals, log.totals[-1] + cost - units, lo=first) - 1
            retry = log.times[leaving] + window - now
        next_after, reset_after = (time + window - now for time in live) if live else (0, 0)
        return [int(allowed), units, max(0, units - used), retry, reset_after, next_after]
