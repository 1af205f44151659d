"""The last minute, second by second of the server's clock, from counters that are read about once a second."""

from collections import Counter
from collections.abc import Iterable, Mapping

LENGTH = 60
MAX_NAMES = 1000


class Sums:
    """What was counted under each name: in each of the last `LENGTH` seconds, and in all."""

    def __init__(self) -> None:
        self.seconds: dict[int, Counter[str]] = {}
        self.total: Counter[str] = Counter()
        self.minute: Counter[str] = Counter()
        self.newest: int | None = None  # the last second that was read

    def forget(self, second: int) -> None:
        """What is not in the minute before the end of this second, and after a step back of the clock the future."""
        self.seconds = {at: counts for at, counts in self.seconds.items() if second - LENGTH < at <= second}
        self.minute = Counter()
        for counts in self.seconds.values():
            self.minute.update(counts)

    def begin(self, second: int) -> range:
        """The seconds since the last reading."""
        if self.newest is None or not self.newest < second < self.newest + LENGTH:
            first = second
        else:
            first = self.newest + 1
        self.newest = second
        self.forget(second)
        for at in range(first, second + 1):
            self.seconds.setdefault(at, Counter())
        return range(first, second + 1)

    def put(self, seconds: range, name: str, count: int) -> None:
        """Nobody knows when in these seconds, if there are several: it is spread evenly."""
        for i, second in enumerate(seconds):
            share = count * (i + 1) // len(seconds) - count * i // len(seconds)
            if share:
                self.seconds[second][name] += share
                self.minute[name] += share
        self.total[name] += count


class Counters(Sums):
    """From counters that only grow, until the server is restarted or they are reset."""

    def __init__(self) -> None:
        super().__init__()
        self._before: Mapping[str, int] | None = None
        self._run = ""

    def read(self, second: int, counters: Mapping[str, int], run: str) -> None:
        """`run` is another one after a restart of the server."""
        before = self._before
        if before is None:  # what was counted earlier is in the total, and in no second
            self.total.update(counters)
            before = counters
        elif run != self._run:
            before = {}
        seconds = self.begin(second)
        for name, count in counters.items():
            known = before.get(name, 0)
            self.put(seconds, name, count - known if count >= known else count)
        self._before, self._run = dict(counters), run


class Halved(Sums):
    """From RATELIMIT.TOP, which halves each key's count every minute from when it was first counted.

    What was counted in the second of a halving, before it, is only half seen: the sum may be that much too small.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, tuple[int, int | None]] = {}  # its count, and at which second of a minute it is halved

    def read(self, second: int, top: Iterable[tuple[str, int]]) -> None:
        first_reading = self.newest is None
        seconds = self.begin(second)
        now: dict[str, tuple[int, int | None]] = {}
        for name, count in top:
            if name in self._before:
                before, halved_at = self._before[name]
                if count < before:
                    halved_at = second % 60
                if halved_at in [at % 60 for at in seconds]:
                    before //= 2
            else:
                before, halved_at = 0, None if first_reading else second % 60
            now[name] = count, halved_at
            if first_reading:
                self.total[name] += count
            else:
                self.put(seconds, name, max(0, count - before))
        self._before = now
        if len(self.total) > MAX_NAMES:
            kept = self.total.most_common(MAX_NAMES // 2)
            self.total = Counter(dict(kept) | {name: self.total[name] for name in now})
