"""What a limiter must answer, by brute force over a plain list of hits. It shares no code with any engine."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 2**53 - 1


@dataclass
class Hit:
    time: int
    cost: int


@dataclass
class Log:
    hits: list[Hit] = field(default_factory=list)

    def now(self, clock: int) -> int:
        return max([clock, *(hit.time for hit in self.hits)])

    def live(self, now: int, window: int) -> list[Hit]:
        return [hit for hit in self.hits if hit.time + window > now]

    def used(self, now: int, window: int) -> int:
        return sum(hit.cost for hit in self.live(now, window))

    def fits(self, now: int, tier: tuple[int, int], cost: int) -> bool:
        return cost == 0 or self.used(now, tier[1]) + cost <= tier[0]

    def view(self, clock: int, kept: int) -> Log:
        """What counts at this time. A log that is ahead of the clock by more than hits are kept is stale."""
        now = self.now(clock)
        return Log([hit for hit in self.hits if hit.time + kept > now] if now <= clock + kept else [])

    def add(self, time: int, cost: int) -> None:
        """A log remembers its newest 2^53 - 1 units."""
        self.hits.append(Hit(time, cost))
        while (surplus := sum(hit.cost for hit in self.hits) - MOST) > 0:
            first = self.hits.pop(0)
            if first.cost > surplus:
                self.hits.insert(0, Hit(first.time, first.cost - surplus))

    def refund(self, clock: int, kept: int, units: int) -> int:
        now, owed = self.now(clock), units
        for _ in range(min(1024, len(self.view(clock, kept).hits))):
            if not owed:
                break
            hit = self.hits.pop()
            if hit.cost > owed:
                self.hits.append(Hit(now, hit.cost - owed))
                owed = 0
            else:
                owed -= hit.cost
        return units - owed


@dataclass
class Group:
    log: Log
    tiers: list[tuple[int, int]]
    cost: int = 1
    stored: bool = False
    """Whether the call has recorded a hit, so that the log has changed."""


def ask(groups: list[Group], clock: int, mode: str) -> list[list[list[int]]]:
    """The six integers of every tier of every key. Mode is HIT, PEEK, STRICT or FORCE."""
    nows = [group.log.now(clock) for group in groups]
    rooms = [
        all(group.log.fits(now, tier, group.cost) for tier in group.tiers)
        for group, now in zip(groups, nows, strict=True)
    ]
    allowed = all(rooms)
    replies = []
    for group, now, room in zip(groups, nows, rooms, strict=True):
        possible = all(group.cost <= limit for limit, _ in group.tiers)
        after = Log(list(group.log.hits))
        if group.cost and (allowed or mode == "FORCE" or mode == "STRICT" and not room and possible):
            after.hits.append(Hit(now, group.cost))
            if mode != "PEEK":
                group.log.add(now, group.cost)
                group.stored = True
        replies.append([six(after, tier, group.cost, clock, now, allowed, room) for tier in group.tiers])
    return replies


def six(log: Log, tier: tuple[int, int], cost: int, clock: int, now: int, allowed: bool, room: bool) -> list[int]:
    limit, window = tier
    live = log.live(now, window)
    retry = 0
    if not allowed and not room and cost > limit:
        retry = -1
    elif not allowed and not room:
        moments = sorted({now, *(hit.time + window for hit in live)})
        at = next(moment for moment in moments if log.fits(moment, tier, cost))
        retry = at - clock if at > now else 0
    times = [hit.time + window - clock for hit in live]
    return [
        int(allowed),
        limit,
        max(0, limit - log.used(now, window)),
        retry,
        max(times, default=0),
        min(times, default=0),
    ]


def binding(tiers: list[list[int]]) -> list[int]:
    """Of the tiers that refuse the one with the longest wait, else that with the fewest units; of equals the first."""
    if any(tier[3] for tier in tiers):
        return max(tiers, key=lambda tier: float("inf") if tier[3] < 0 else tier[3])
    return min(tiers, key=lambda tier: tier[2])
