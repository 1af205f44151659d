"""What a limit costs that is too busy for one server, by simulation: scale.py prints a table, scale.py chart a chart.

20 processes send requests at random times. The limit is 1,000 in any second. They ask one exact log, or split the limit
into shares, or lease units in batches (examples/lease.py). Each row is 30 seconds of a simulated clock, always from the
same seed. docs/scale.md explains the columns and shows the chart.
"""

import random
import sys
from collections import deque

LIMIT, WINDOW, PROCESSES, SECONDS = 1_000, 1.0, 20, 30
LOADS = [0.5, 0.8, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0]  # requests that come, over the limit


class Log:
    """An exact log: at most `limit` units in any window."""

    def __init__(self, limit):
        self.limit, self.hits, self.used = limit, deque(), 0

    def hit(self, now, units=1):
        while self.hits and self.hits[0][0] + WINDOW <= now:
            self.used -= self.hits.popleft()[1]
        if self.used + units > self.limit:
            return False
        self.hits.append((now, units))
        self.used += units
        return True

    def refund(self, units):
        while units > 0 and self.hits:
            time, weight = self.hits.pop()
            back = min(units, weight)
            units -= back
            self.used -= back
            if weight > back:
                self.hits.append((time, weight - back))


class Exact:
    def __init__(self, rng):
        self.log, self.calls = Log(LIMIT), 0

    def ask(self, process, now):
        self.calls += 1
        return self.log.hit(now)


class Shares:
    """`count` logs on several nodes, with a part of the limit each. A refused request tries `tries` logs in all."""

    def __init__(self, rng, count, tries):
        self.rng, self.tries, self.calls = rng, tries, 0
        self.logs = [Log(LIMIT // count) for _ in range(count)]

    def ask(self, process, now):
        for log in self.rng.sample(self.logs, self.tries):
            self.calls += 1
            if log.hit(now):
                return True
        return False


class Leases:
    """A process takes `batch` units at once, serves from them for `lifetime` seconds, and gives the rest back. Where
    there is no room for a batch it takes one unit. A refusal is remembered until the oldest hit leaves."""

    def __init__(self, rng, batch, lifetime):
        self.log, self.batch, self.lifetime, self.calls = Log(LIMIT), batch, lifetime, 0
        self.left, self.until, self.refused = ([0] * PROCESSES for _ in range(3))

    def ask(self, process, now):
        if now >= self.until[process] and self.left[process]:
            # Later, its units have left the window, and a refund would take those of others.
            if now < self.until[process] - self.lifetime + WINDOW:
                self.calls += 1
                self.log.refund(self.left[process])
            self.left[process] = 0
        if self.left[process]:
            self.left[process] -= 1
            return True
        if now < self.refused[process]:
            return False
        self.calls += 1
        if self.log.hit(now, self.batch):
            self.left[process], self.until[process] = self.batch - 1, now + self.lifetime
            return True
        self.calls += 1
        if self.log.hit(now):
            return True
        self.refused[process] = self.log.hits[0][0] + WINDOW
        return False


WAYS = [
    ("one log", Exact, ()),
    ("4 shares", Shares, (4, 1)),
    ("16 shares", Shares, (16, 1)),
    ("16 shares, 2 tries", Shares, (16, 2)),
    ("leases of 5 for 0.1 s", Leases, (5, 0.1)),
    ("leases of 20 for 0.1 s", Leases, (20, 0.1)),
    ("leases of 20 for 1 s", Leases, (20, 1.0)),
]


def run(kind, settings, load):
    """What was admitted, over what an exact log admits; the most in any window, over the limit; calls for a request."""
    rng = random.Random(f"{load}")
    way, ideal = kind(random.Random(1), *settings), Log(LIMIT)
    now, requests, admitted, exact, most, recent = 0.0, 0, 0, 0, 0, deque()
    while now < SECONDS:
        now += rng.expovariate(load * LIMIT / WINDOW)
        requests += 1
        exact += ideal.hit(now)
        if way.ask(rng.randrange(PROCESSES), now):
            admitted += 1
            recent.append(now)
        while recent and recent[0] + WINDOW <= now:
            recent.popleft()
        most = max(most, len(recent))
    return admitted / exact, most / LIMIT, way.calls / requests


def table():
    rows = ["| way | admitted at 80 % | at 100 % | at 130 % | at 200 % | most in a second | calls for a request |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, kind, settings in WAYS:
        runs = {load: run(kind, settings, load) for load in LOADS}
        admitted = " | ".join(f"{runs[load][0]:.1%}" for load in (0.8, 1.0, 1.3, 2.0))
        most, calls = max(run[1] for run in runs.values()), max(run[2] for run in runs.values())
        rows.append(f"| {name} | {admitted} | {most:.1%} | {calls:.2f} |")
    return "\n".join(rows)


COLOURS = ["#24292f", "#0969da", "#8250df", "#1a7f37", "#bf8700", "#cf222e", "#bc4c00"]


def chart():
    """What is admitted of what could be, by the load."""
    left, top, width, height, low = 60, 44, 480, 260, 0.9
    across = lambda load: left + width * (load - LOADS[0]) / (LOADS[-1] - LOADS[0])  # noqa: E731
    down = lambda part: top + height * (1 - (part - low) / (1.01 - low))  # noqa: E731
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 360" role="img">',
        "<title>What seven ways admit of what one exact log admits, by how many requests come</title>",
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.s{font-size:11px;fill:#57606a}.g{stroke:#d0d7de}"
        ".l{fill:none;stroke-width:2}.bg{fill:#fff}</style>",
        '<rect class="bg" width="780" height="360" rx="6"/>',
        '<text x="20" y="26">Admitted, over what one exact log admits</text>',
    ]
    for part in (0.9, 0.95, 1.0):
        y = down(part)
        lines.append(f'<path class="g" d="M{left} {y:.1f}H{left + width}"/>')
        lines.append(f'<text class="s" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{part:.0%}</text>')
    for load in (0.5, 1.0, 1.5, 2.0):
        x = across(load)
        lines.append(f'<text class="s" x="{x:.1f}" y="{top + height + 20}" text-anchor="middle">{load:.0%}</text>')
    lines.append(f'<text class="s" x="{left}" y="{top + height + 40}">requests that come, over the limit</text>')
    for nth, (name, kind, settings) in enumerate(WAYS):
        points = " ".join(f"{across(load):.1f},{down(run(kind, settings, load)[0]):.1f}" for load in LOADS)
        y = top + 20 + 24 * nth
        lines.append(f'<polyline class="l" stroke="{COLOURS[nth]}" points="{points}"/>')
        lines.append(
            f'<path class="l" stroke="{COLOURS[nth]}" d="M560 {y}h24"/><text x="592" y="{y + 4}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>"])


if __name__ == "__main__":
    print(chart() if sys.argv[1:] == ["chart"] else table())
