"""The routes: a REST API with limits.

Each limit is declared once, with its name, and used as a dependency.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Annotated, Any
from unicodedata import normalize

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.security import APIKeyHeader
from pydantic import AfterValidator, BaseModel, Field

from .clients import client_address, everyone, hashed
from .limiter import Limiter
from .limits import AllOf, RateLimit
from .monitor import Monitor
from .settings import Settings

settings = Settings()
limiter = Limiter(settings.redis_url, fail=settings.rate_limit_fail, timeout=settings.rate_limit_timeout)
secret = settings.rate_limit_secret.get_secret_value()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with limiter:
        yield


app = FastAPI(title="Rate monitor", lifespan=lifespan)
limiter.install(app)

# 401 without a key. A real application would also check whether it issued this key.
api_key = hashed(APIKeyHeader(name="X-API-Key"), secret)

protected = RateLimit("protected", "10/minute")
strict = RateLimit("strict", "5/10s")
history = RateLimit("history", "100/minute", by=api_key)


@app.get("/")
async def root() -> dict[str, str]:
    return {"message": "No limit here. Try /protected, /strict and /monitor; /docs has the rest."}


@app.get("/protected", dependencies=[Depends(protected)])
async def ten_a_minute() -> dict[str, str]:
    return {"message": "One of 10 requests a minute."}


@app.get("/strict", dependencies=[Depends(strict)])
async def five_in_ten_seconds() -> dict[str, str]:
    return {"message": "One of 5 requests in 10 seconds."}


@app.get("/stocks/{symbol}/history", dependencies=[Depends(history)])
async def stock_history(symbol: Annotated[str, Path(pattern="^[A-Z]{1,6}$")]) -> dict[str, Any]:
    """Thirty days of made-up prices, always the same for a symbol."""
    dice, price, prices = random.Random(symbol), 100.0, []
    for day in range(30, 0, -1):
        price *= dice.uniform(0.97, 1.03)
        date = datetime.now(UTC).date() - timedelta(days=day)
        prices.append({"date": date.isoformat(), "close": round(price, 2)})
    return {"symbol": symbol, "prices": prices}


def one_spelling(name: str) -> str:
    """`anna`, `Anna` and `anna ` are one user, both for the limit and for looking up the user."""
    return normalize("NFKC", normalize("NFKC", name).casefold()).strip()


class Credentials(BaseModel):
    username: Annotated[str, Field(max_length=100), AfterValidator(one_spelling)]
    password: Annotated[str, Field(max_length=100)]


async def attempt(credentials: Credentials, address: Annotated[str, Depends(client_address)]) -> str:
    """By address and account: nobody can lock somebody else out."""
    return f"{address} {credentials.username}"


# Refused attempts count too, so trying again does not help. While attempts cannot be counted, none is allowed.
who_logs_in = hashed(attempt, secret)
login = RateLimit("login", "5/minute", by=who_logs_in, strict=True, fail="closed")


@app.post("/login", dependencies=[Depends(login)])
async def log_in(
    request: Request, credentials: Credentials, who: Annotated[str, Depends(who_logs_in)]
) -> dict[str, str]:
    expected = settings.login_password.get_secret_value()
    if not compare_digest(credentials.password.encode(), expected.encode()):
        raise HTTPException(401, "Wrong user name or password.")
    await login.forget(request, who)
    return {"message": f"Welcome, {credentials.username}."}


class Completion(BaseModel):
    prompt: Annotated[str, Field(max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 100


async def tokens(completion: Completion) -> int:
    """The most a request may cost: its words, and those of the answer."""
    return len(completion.prompt.split()) + completion.max_tokens


client_tokens = RateLimit("client-tokens", "1000/minute", by=api_key)
all_tokens = RateLimit("all-tokens", "5000/minute", by=everyone)


@app.post("/completions", dependencies=[Depends(AllOf(client_tokens, all_tokens, cost=tokens))])
async def complete(completion: Completion, cost: Annotated[int, Depends(tokens)]) -> dict[str, Any]:
    """Charged to the client and to the service in one step, or to neither."""
    return {"completion": completion.prompt[::-1], "tokens": cost}


if settings.monitor:
    monitor = Monitor(limiter, [protected, strict, history, login, client_tokens, all_tokens])
    monitor.install(app)
