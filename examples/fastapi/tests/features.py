"""An application with the features that the example's routes do not show."""

import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

from rate_monitor import AllOf, Answer, Limiter, RateLimit

limiter = Limiter(
    os.environ["REDIS_URL"],
    timeout=float(os.environ["RATE_LIMIT_TIMEOUT"]),
    pause=float(os.environ.get("PAUSE", 0.2)),
)


@asynccontextmanager
async def lifespan(_):
    async with limiter:
        yield


app = FastAPI(lifespan=lifespan)
limiter.install(app)


async def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


def team(name: Annotated[str, Depends(user)]) -> str:
    return name.partition("@")[2]


tiered = RateLimit("tiered", "2/10s", "3/hour", by=user)


@app.get("/tiered")
async def route(answer: Annotated[Answer, Depends(tiered)]):
    return answer._asdict()


@app.get("/raises", dependencies=[Depends(RateLimit("raises", "2/minute"))])
async def raises():
    raise HTTPException(418, headers={"X-Of": "the route"})


@app.get("/invalid", dependencies=[Depends(RateLimit("invalid", "2/minute"))])
async def invalid(number: int):
    return number


@app.get("/streams", dependencies=[Depends(RateLimit("streams", "2/minute"))])
async def streams():
    async def parts():
        yield "a"
        yield "b"

    return StreamingResponse(parts())


# As in the recipe, these routes share a client's log.
@app.get("/long", dependencies=[Depends(RateLimit("shared", "3/minute"))])
@app.get("/short", dependencies=[Depends(RateLimit("shared", "2/10s"))])
async def shared():
    return {}


one = RateLimit("one", "5/minute")
other = RateLimit("other", "1/minute", by=user)


@app.get("/both", dependencies=[Depends(one), Depends(other)])
async def both():
    return {}


together = AllOf(RateLimit("user", "2/minute", by=user), RateLimit("team", "3/hour", by=team))


@app.get("/all", dependencies=[Depends(together)])
async def all_of():
    return {}


async def units(units: int) -> int:
    return units


@app.get("/weighed", dependencies=[Depends(RateLimit("weighed", "10/minute", cost=units))])
async def weighed():
    return {}


@app.get("/never", dependencies=[Depends(RateLimit("never", "0/minute"))])
async def never():
    return {}


@app.get("/open", dependencies=[Depends(RateLimit("open", "2/minute"))])
async def fails_open():
    return {}


@app.get("/closed", dependencies=[Depends(RateLimit("closed", "2/minute", fail="closed"))])
async def fails_closed():
    return {}
