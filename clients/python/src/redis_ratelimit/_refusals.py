"""A memory of refusals: because `retry_after` is exact, the same call need not be sent again before."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ._answer import Answer
from ._call import Group


class Refusals:
    """The last refusal of each of at most `size` keys, for at most `longest` seconds. 0 remembers nothing."""

    def __init__(self, longest: float, size: int) -> None:
        self._longest = longest
        self._size = size
        self._found: OrderedDict[bytes, tuple[float, float, Group, bool, Answer]] = OrderedDict()
        self._lock = Lock()

    def remember(self, group: Group, tiers: bool, answer: Answer, asked: float, answered: float) -> None:
        """Times are those of the monotonic clock: before the call was sent, and after."""
        after = self._longest if answer.retry_after is None else min(self._longest, answer.retry_after)
        if after <= 0:
            return
        with self._lock:
            self._found[group.key] = (asked + after, answered, group, tiers, answer)
            self._found.move_to_end(group.key)
            if len(self._found) > self._size:
                self._found.popitem(last=False)

    def recall(self, group: Group, tiers: bool, now: float) -> Answer | None:
        """The refusal that this call would get as well."""
        if not self._found:
            return None
        found = self._found.get(group.key)
        if found is None:
            return None
        until, answered, asked_for, had_tiers, answer = found
        if now >= until:
            self.forget(group.key)
            return None
        if asked_for != group or had_tiers != tiers:
            return None
        return answer.later(max(0.0, now - answered))

    def forget(self, key: bytes) -> None:
        with self._lock:
            self._found.pop(key, None)
