"""The live page `/monitor`. What it shows comes from Redis, so it is what all processes of the application, and all
other users of the server, admit and refuse.

One task reads Redis once a second and keeps the last minute. Pages ask for that once a second: a browser has only six
connections to a host, so a stream for each open tab would block the seventh.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
from redis_ratelimit import Limit

from .history import LENGTH, Counters, Halved

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
POLICY = {"Content-Security-Policy": "default-src 'self'; img-src data:"}
PREFIX = "rl:"  # of keys, by redis_ratelimit.fastapi
SCANNED = 200  # keys looked at in a second
SAMPLE = 200  # keys kept in mind
NEAR = 0.75  # of its limit
ROWS = 10
HITS = 1000  # drawn of a client
SILENT = "Redis does not answer"


def explain(error: BaseException) -> str:
    """Why Redis cannot be read."""
    if isinstance(error.__cause__, RedisError):  # what the server said to a new connection: a wrong password
        error = error.__cause__
    if isinstance(error, ResponseError | AuthenticationError | AuthorizationError):
        if "unknown command" in str(error):
            return "Redis has not loaded the module: a script limits in its place, and nobody counts"
        return f"Redis answers: {error}"
    if isinstance(error, RedisError | OSError):  # also a time-out
        return SILENT
    log.error("the monitor cannot read Redis", exc_info=error)
    return "The monitor failed: see the application's log"


class Watched(NamedTuple):
    """A client's log."""

    label: str
    """Whose it is, in words."""
    limit: str
    strict: bool = False

    @property
    def arguments(self) -> tuple[int, str]:
        limit = Limit.parse(self.limit)
        return limit.units, f"{limit.milliseconds}ms"


class Monitor:
    """`describe` says what is known of a log, by the name of its limit and its client. `policies` are the names of
    limits and the limits. `away` says what happens to requests while Redis is away."""

    def __init__(
        self,
        url: str,
        timeout: float,
        describe: Callable[[str, str], Watched | None],
        policies: Iterable[tuple[str, str]],
        away: str,
    ):
        self.url, self.timeout, self.describe, self.away = url, timeout, describe, away
        self.names: dict[str, list[str]] = {}
        for name, limit in policies:
            self.names.setdefault(str(Limit.parse(limit)), []).append(name)
        self.counters, self.refused = Counters(), Halved()
        self.gaps: set[int] = set()  # seconds in which Redis was not read
        self.problem: dict[str, Any] | None = None
        self.last: dict[str, int] = {}  # when a client was refused last
        self.near: list[dict[str, Any]] = []
        self.sample: set[str] = set()
        self.cursor = 0
        self.ahead = time.time() - time.monotonic()  # of the server's clock to this process's, seconds

    def install(self, app: FastAPI) -> None:
        app.get("/monitor", include_in_schema=False)(self.page)
        app.get("/monitor/data", include_in_schema=False)(self.data)
        app.mount("/monitor/static", StaticFiles(directory=STATIC))

    async def __aenter__(self) -> "Monitor":
        # Names of keys are any bytes.
        options: Any = {"decode_responses": True, "encoding_errors": "backslashreplace"}
        self.redis = Redis.from_url(self.url, **options)
        self.task = asyncio.create_task(self.watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.redis.aclose()

    def now(self) -> float:
        """Seconds since the epoch, by the server's clock; while it is away, as it would be."""
        return time.monotonic() + self.ahead

    # Reading

    async def watch(self) -> None:
        while True:
            problem = None
            try:
                async with asyncio.timeout(self.timeout):
                    await self.read()
            except Exception as error:
                problem = explain(error)
            self.tell(problem)
            # Shortly after the server's next second begins: so what was counted belongs to the second that has ended.
            await asyncio.sleep(1.01 - self.now() % 1)

    def tell(self, problem: str | None) -> None:
        second = round(self.now())
        self.counters.forget(second)
        self.refused.forget(second)
        self.gaps = {gap for gap in self.gaps if second - LENGTH < gap <= second}
        if problem:
            known = self.counters.newest or second - 1
            self.gaps |= set(range(max(known, second - LENGTH) + 1, second + 1))
            self.near = []
            since = self.problem["since"] if self.problem else round(self.now() * 1000)
            # Other problems are the monitor's alone.
            self.problem = {"text": problem, "since": since, "meanwhile": self.away if problem == SILENT else ""}
        else:
            self.problem = None

    async def read(self) -> None:
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        pipe.info("server", "ratelimit")
        pipe.execute_command("RATELIMIT.TOP", "COUNT", 100)
        pipe.scan(self.cursor, match=f"{PREFIX}*", count=SCANNED, _type="stream")
        (seconds, micros), info, top, (self.cursor, scanned) = await pipe.execute()
        self.ahead = seconds + micros / 1_000_000 - time.monotonic()
        second = round(self.now())  # the one that has just ended is named after its end
        counters = {name: info[f"ratelimit_hits_{name}"] for name in ("admitted", "refused")}
        for field, figures in info.items():
            if field.startswith("ratelimit_policy_"):
                policy = field.removeprefix("ratelimit_policy_")
                counters |= {f"{policy} {name}": figures[name] for name in ("admitted", "refused")}
        self.counters.read(second, counters, info["run_id"])
        clients = [(key.removeprefix(PREFIX), count, last) for key, count, last in top]
        self.refused.read(second, [(client, count) for client, count, _ in clients])
        self.last = {client: self.last[client] for client in self.refused.total if client in self.last}
        self.last |= {client: last for client, _, last in clients}
        found = {key.removeprefix(PREFIX) for key in scanned} | {client for client, *_ in clients[:ROWS]}
        await self.look(self.sample | found)

    async def look(self, clients: set[str]) -> None:
        """Finds those that are near their limits, without a hit."""
        known = [(client, watched) for client in clients if (watched := self.known(client))]
        pipe = self.redis.pipeline(transaction=False)
        for client, watched in known:
            pipe.execute_command("RATELIMIT.PEEK", PREFIX + client, *watched.arguments, "COST", 0)
        used = []
        for (client, watched), reply in zip(known, await pipe.execute(raise_on_error=False), strict=True):
            # An error is the key's: a stream that is no log, for example.
            if not isinstance(reply, Exception) and (units := reply[1] - reply[2]):
                row = {"client": client, "label": watched.label, "used": units, "limit": reply[1], "next": reply[5]}
                used.append(row)
        used.sort(key=lambda row: (-row["used"] / row["limit"], row["client"]))
        self.sample = {row["client"] for row in used[:SAMPLE]}
        self.near = [row for row in used[:ROWS] if row["used"] >= NEAR * row["limit"]]

    def known(self, client: str) -> Watched | None:
        name, _, who = client.partition(":")
        return self.describe(name, who)

    # Telling

    async def page(self) -> FileResponse:
        return FileResponse(STATIC / "monitor.html", headers=POLICY)

    async def data(self, client: str = "") -> dict[str, Any]:
        """`client` is `limit:who`, the key without its prefix. Only keys of known limits are read."""
        now = self.now()
        newest = max(self.counters.newest or round(now), *self.gaps, 0)
        seconds = range(newest - LENGTH + 1, newest + 1)
        grown = [self.counters.seconds.get(second) for second in seconds]
        return {
            "seconds": [counts if counts is None else [counts["admitted"], counts["refused"]] for counts in grown],
            "gaps": [second in self.gaps for second in seconds],
            "problem": self.problem,
            "admitted": self.sums(self.counters, "admitted"),
            "refused": self.sums(self.counters, "refused"),
            "policies": self.by_policy(),
            "clients": self.by_client(now),
            "near": self.near,
            "window": await self.window(client) if client else None,
        }

    @staticmethod
    def sums(of: Counters | Halved, name: str) -> dict[str, int]:
        return {"minute": of.minute[name], "all": of.total[name]}

    def by_policy(self) -> list[dict[str, Any]]:
        policies = sorted({name.split()[0] for name in self.counters.total if " " in name})
        rows = [
            {
                "policy": policy,
                "names": self.names.get(policy, []),
                "admitted": self.sums(self.counters, f"{policy} admitted"),
                "refused": self.sums(self.counters, f"{policy} refused"),
            }
            for policy in policies
        ]
        return sorted(rows, key=lambda row: (-row["refused"]["minute"], -row["admitted"]["minute"], row["policy"]))

    def by_client(self, now: float) -> list[dict[str, Any]]:
        """Those that were refused most, in the last minute first."""
        sums = [(client, self.sums(self.refused, client)) for client in self.refused.total]
        sums.sort(key=lambda pair: (-pair[1]["minute"], -pair[1]["all"], pair[0]))
        return [
            {
                "client": client,
                "label": watched.label if (watched := self.known(client)) else "not of this application",
                "refused": refused,
                "ago": max(0, round(now - self.last[client] / 1000)),
            }
            for client, refused in sums[:ROWS]
        ]

    async def window(self, client: str) -> dict[str, Any]:
        """The hits that count now, oldest first, as `[milliseconds ago, cost]`."""
        watched = self.known(client)
        if not watched:
            return {"error": "No limit of this application has that name."}
        if self.problem:
            return {"error": "Not known while Redis cannot be read."}
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        pipe.execute_command("RATELIMIT.PEEK", PREFIX + client, *watched.arguments, "COST", 0)
        pipe.xrevrange(PREFIX + client, count=HITS)
        try:
            async with asyncio.timeout(self.timeout):
                (seconds, micros), (_, limit, remaining, *_, following), entries = await pipe.execute()
        except (RedisError, OSError) as error:
            return {"error": f"{explain(error)}."}
        now, length = seconds * 1000 + micros // 1000, Limit.parse(watched.limit).milliseconds
        # An entry is `time-tally {retention: cost}`.
        hits = [[now - int(entry.partition("-")[0]), int(*fields.values())] for entry, fields in reversed(entries)]
        hits = [hit for hit in hits if hit[0] < length]
        return {
            "label": watched.label,
            "limit": limit,
            "strict": watched.strict,
            "milliseconds": length,
            "used": max(limit - remaining, sum(cost for _, cost in hits)),
            "next_after": following,
            "hits": hits,
        }
