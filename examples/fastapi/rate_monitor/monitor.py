"""The live page `/monitor`, and the events it draws once a second. They come from Redis alone, so they show what all
processes of the application, and all other users of the server, admit and refuse."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse
from fastapi.staticfiles import StaticFiles
from redis.exceptions import RedisError, ResponseError

from .limiter import Limiter
from .limits import Answer, RateLimit

STATIC = Path(__file__).with_name("static")
POLICY = {"Content-Security-Policy": "default-src 'self'; img-src data:"}
MAX_HITS = 1000


class Monitor:
    def __init__(self, limiter: Limiter, limits: Sequence[RateLimit]):
        self.limiter = limiter
        self.limits = {limit.name: limit for limit in limits}
        self.server: Any = None  # uvicorn's, which would otherwise wait until the last viewer leaves

    def install(self, app: FastAPI) -> None:
        app.get("/monitor", include_in_schema=False)(self.page)
        app.get("/monitor/events", include_in_schema=False, response_class=EventSourceResponse)(self.events)
        app.mount("/monitor", StaticFiles(directory=STATIC))

    async def page(self) -> FileResponse:
        return FileResponse(STATIC / "monitor.html", headers=POLICY)

    async def events(self, client: str = "") -> AsyncIterator[dict[str, Any]]:
        while not (self.server and self.server.should_exit):
            try:
                async with asyncio.timeout(self.limiter.timeout):
                    event = await self.snapshot(client)
            except ResponseError as error:
                event = {"error": f"Redis answers: {error}"}
            except (RedisError, OSError, TimeoutError):
                event = {"error": "Redis does not answer"}
            yield event
            await asyncio.sleep(1)

    async def snapshot(self, client: str) -> dict[str, Any]:
        """`client` is `limit:who`, the key without its prefix. Only keys of known limits are read."""
        limit = self.limits.get(client.partition(":")[0])
        prefix = self.limiter.prefix
        pipe = self.limiter.redis.pipeline(transaction=False)
        pipe.time()
        pipe.info("ratelimit")
        pipe.execute_command("RATELIMIT.TOP", "COUNT", 10)
        if limit:
            tiers = [word for tier in limit.tiers for word in (tier.limit, tier.window)]
            pipe.execute_command("RATELIMIT.PEEK", prefix + client, *tiers)
            pipe.xrevrange(prefix + client, count=MAX_HITS)
        (second, microsecond), info, top, *window = await pipe.execute()
        now = second * 1000 + microsecond // 1000
        return {
            "now": now,
            "admitted": info["ratelimit_hits_admitted"],
            "refused": info["ratelimit_hits_refused"],
            "top": [[key.removeprefix(prefix), refused, last] for key, refused, last in top],
            "window": limit and self.window(limit, now, *window),
        }

    def window(self, limit: RateLimit, now: int, reply: list[int], entries: list[Any]) -> dict[str, Any]:
        """The hits that count now, oldest first, as `[time, cost]`. An entry is `time-tally {retention: cost}`."""
        answer = Answer(*reply)
        tier = limit.binding(answer)
        hits = [[int(entry.partition("-")[0]), int(*fields.values())] for entry, fields in reversed(entries)]
        return {
            "limit": tier.limit,
            "milliseconds": tier.milliseconds,
            "next_after": answer.next_after,
            "hits": [hit for hit in hits if hit[0] > now - tier.milliseconds],
        }
