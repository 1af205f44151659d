"""An application with all that limits can do in FastAPI. Tests run it with uvicorn, and in process."""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from redis_ratelimit import Answer
from redis_ratelimit.aio import Limiter
from redis_ratelimit.fastapi import AllOf, RateLimit, RateLimitExceeded, everyone, hashed, install


async def user(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


def team(name: Annotated[str, Depends(user)]) -> str:
    return name.partition("@")[2]


async def plan(x_plan: Annotated[str, Header()] = "free") -> list[str] | str | None:
    return {"free": "2/minute", "pro": ["4/minute", "6/hour"], "staff": None}[x_plan]


def tenant(request: Request) -> str | None:
    return None if request.headers["host"].startswith("intern") else "1/minute"


async def units(units: int) -> Any:
    return units if units != 13 else "thirteen"


def build(limiter: Limiter) -> FastAPI:
    app = FastAPI()
    install(app, limiter)

    def limited(path: str, *limits: Any, **options: Any) -> Any:
        return app.get(path, dependencies=[Depends(limit) for limit in limits], **options)

    @limited("/plain", RateLimit("plain", "2/minute"))
    async def plain() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/tiered")
    async def tiered(answer: Annotated[Answer, Depends(RateLimit("tiered", "2/10s", "3/hour", by=user))]) -> Any:
        return {"remaining": answer.remaining, "tiers": len(answer.tiers)}

    @limited("/plans", RateLimit("plans", plan, by=user))
    async def plans() -> None: ...

    @limited("/tenants", RateLimit("tenants", tenant))
    async def tenants() -> None: ...

    @limited("/weighed", RateLimit("weighed", "10/minute", cost=units))
    async def weighed() -> None: ...

    @limited("/secret", RateLimit("secret", "1/minute", by=hashed(user, "secret")))
    async def secret() -> None: ...

    @limited("/login", RateLimit("login", "2/minute", by=user, strict=True))
    async def login() -> None: ...

    @limited("/failures", RateLimit("failures", "2/minute", refund_if=lambda status: status >= 400))
    async def failures(status: int = 200) -> Any:
        if status == 500:
            raise RuntimeError("a fault of the handler")
        if status >= 400:
            raise HTTPException(status, headers={"X-Of": "the route"})
        return JSONResponse({}, status)

    @limited("/invalid", RateLimit("invalid", "2/minute", refund_if=422))
    async def invalid(number: int) -> int:
        return number

    @limited("/streams", RateLimit("streams", "2/minute"))
    async def streams() -> StreamingResponse:
        async def parts() -> Any:
            yield "a"
            yield "b"

        return StreamingResponse(parts())

    one, other = RateLimit("one", "5/minute", refund_if={429}), RateLimit("other", "1/minute", by=user)

    @limited("/both", one, other)
    async def both() -> None: ...

    together = AllOf(
        RateLimit("user", "2/minute", "9/hour", by=user, refund_if=418),
        RateLimit("team", "3/hour", by=team),
        RateLimit("plan", plan, by=everyone),
    )

    @limited("/all", together)
    async def all_of(teapot: bool = False) -> None:
        if teapot:
            raise HTTPException(418)

    @limited("/twice", RateLimit("twice", "5/minute"), RateLimit("twice", "9/hour"))
    async def twice() -> None: ...

    @limited("/wrong/by", RateLimit("wrong", "5/minute", by=lambda: 1.5))
    async def wrong_by() -> None: ...

    @limited("/wrong/limits", RateLimit("wrong", lambda: "many"))
    async def wrong_limits() -> None: ...

    @limited("/stream-key", RateLimit("wrongtype", "5/minute", by=everyone))
    async def wrong_type() -> None: ...

    router = APIRouter(prefix="/router", dependencies=[Depends(RateLimit("router", "3/minute"))])

    @router.get("/of/{number}", dependencies=[Depends(RateLimit("router", "3/minute"))])
    async def routed(number: int) -> int:
        return number

    app.include_router(router)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, _: Annotated[Answer, Depends(RateLimit("socket", "2/minute"))]) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    @app.get("/free")
    async def free() -> None: ...

    return app


def with_own_refusal(limiter: Limiter) -> FastAPI:
    app = build(limiter)

    @app.exception_handler(RateLimitExceeded)
    async def refuse(request: Request, error: RateLimitExceeded) -> PlainTextResponse:
        return PlainTextResponse(f"in {error.refusal.retry_after:.0f} s", 420)

    return app


def create() -> FastAPI:
    """For `uvicorn --factory`."""
    return build(Limiter(os.environ["REDIS_URL"], engine=os.environ.get("ENGINE", "auto")))  # type: ignore[arg-type]
