"""An application whose dependencies return wrong values, or values at the edge."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.security import APIKeyHeader

from rate_monitor import AllOf, Limiter, RateLimit, everyone, hashed

limiter = Limiter(os.environ["REDIS_URL"], timeout=float(os.environ["RATE_LIMIT_TIMEOUT"]), pause=0.2)


@asynccontextmanager
async def lifespan(_):
    async with limiter:
        yield


app = FastAPI(lifespan=lifespan)
limiter.install(app)

Weight = IntEnum("Weight", {"HEAVY": 3})

VALUES: dict[str, Any] = {
    "enum": Weight.HEAVY,
    **{str(value): value for value in (1.5, 2.0, 0, 1, 3, -5, None, True, False, 2**53 - 1, 2**53, 42, "é", "")},
    **{"'3'": "3", "bytes": b"3", "nan": float("nan"), "list": [1], "object": object(), "uuid": uuid.UUID(int=7)},
    **{"\\ud800": "\ud800", "long": "x" * 10_000, "longer": "x" * 10_001, "nul": "a\0b\r\n"},
}


async def weight(cost: str) -> Any:
    if cost == "raises":
        raise HTTPException(418)
    return VALUES[cost]


async def person(who: str) -> Any:
    if who == "raises":
        raise HTTPException(418)
    return VALUES[who]


def sync_weight(cost: str) -> Any:
    return VALUES[cost]


async def generated_weight(cost: str) -> AsyncIterator[Any]:
    yield VALUES[cost]


def generated_person(who: str) -> Iterator[Any]:
    yield VALUES[who]


class Weighing:
    def __call__(self, cost: str) -> Any:
        return VALUES[cost]


for name, cost in {"cost": weight, "sync": sync_weight, "generated": generated_weight, "object": Weighing()}.items():
    app.get(f"/{name}", dependencies=[Depends(RateLimit(name, "5/minute", cost=cost))])(lambda: {})


@app.get("/closed", dependencies=[Depends(RateLimit("closed", "5/minute", cost=weight, fail="closed"))])
@app.get("/strict", dependencies=[Depends(RateLimit("strict", "5/minute", cost=weight, strict=True))])
@app.get("/tiers", dependencies=[Depends(RateLimit("tiers", "5/minute", "7/hour", cost=weight))])
@app.get("/free", dependencies=[Depends(RateLimit("free", "5/minute", cost=0))])
async def weighed():
    return {}


both = AllOf(RateLimit("one", "5/minute", by=everyone), RateLimit("other", "4/minute"), cost=weight)


@app.get("/both", dependencies=[Depends(both)])
async def charged_to_both():
    return {}


@app.get("/by", dependencies=[Depends(RateLimit("by", "5/minute", by=person))])
@app.get("/by-generated", dependencies=[Depends(RateLimit("by-generated", "5/minute", by=generated_person))])
@app.get("/by-hashed", dependencies=[Depends(RateLimit("by-hashed", "5/minute", by=hashed(person, "s")))])
@app.get("/by-both", dependencies=[Depends(AllOf(RateLimit("a", "9/minute"), RateLimit("b", "9/minute", by=person)))])
async def of_somebody():
    return {}


async def in_body(who: Annotated[Any, Body(embed=True)]) -> Any:
    return who


@app.post("/by-body", dependencies=[Depends(RateLimit("by-body", "5/minute", by=in_body))])
async def of_somebody_in_the_body():
    return {}


optional_key = hashed(APIKeyHeader(name="X-API-Key", auto_error=False), "s")


@app.get("/optional", dependencies=[Depends(RateLimit("optional", "2/minute", by=optional_key))])
async def with_a_key_or_without():
    return {}


@app.websocket("/socket")
async def socket(socket: WebSocket, answer: Annotated[Any, Depends(RateLimit("socket", "2/minute", by=optional_key))]):
    await socket.accept()
    await socket.send_json(answer)
    await socket.close()


async def x_cost(x_cost: Annotated[int, Header()]) -> int:
    return x_cost


@app.websocket("/all-socket")
async def all_socket(
    socket: WebSocket,
    _: Annotated[Any, Depends(AllOf(RateLimit("c", "3/minute"), RateLimit("d", "4/minute"), cost=x_cost))],
):
    await socket.accept()
    await socket.close()
