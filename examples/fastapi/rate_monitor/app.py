"""The routes: a REST API with limits.

Each limit is declared once, with its name, and used as a dependency.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Annotated, Any
from unicodedata import normalize

import redis
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.security import APIKeyHeader
from pydantic import AfterValidator, BaseModel, Field
from redis_ratelimit.aio import Limiter
from redis_ratelimit.fastapi import AllOf, RateLimit, client_address, everyone, hashed, install

from .monitor import Monitor, Watched
from .settings import Settings

settings = Settings()
secret = settings.rate_limit_secret.get_secret_value()

# Without the cache of refusals every refused request reaches Redis, so the monitor counts all of them.
options: Any = {"timeout": settings.rate_limit_timeout, "refusal_cache": 0}
limiter = Limiter(settings.redis_url, fail=settings.rate_limit_fail, **options)
# While attempts to log in cannot be counted, none is allowed.
careful = Limiter(settings.redis_url, fail="closed", **options)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(limiter)
        await stack.enter_async_context(careful)
        if settings.monitor:
            for key, plan in settings.api_keys.items():
                plan_of[str(await api_key(key))] = plan
            await stack.enter_async_context(monitor)
        yield


app = FastAPI(title="Rate monitor", lifespan=lifespan)
install(app, limiter)

# Plans

PLANS = {
    "free": {"history": "100/minute", "client-tokens": "1000/minute"},
    "pro": {"history": "500/minute", "client-tokens": "3000/minute"},
}
plan_of: dict[str, str] = {}  # by what `api_key` returns, for the monitor


async def issued_key(sent: Annotated[str, Depends(APIKeyHeader(name="X-API-Key"))]) -> str:
    """401 without a key, or with one that was not issued: else a client would invent a new one for each request."""
    with suppress(UnicodeError):
        sent = sent.encode("latin-1").decode()  # Starlette reads headers as Latin-1, but clients send UTF-8
    if sent not in settings.api_keys:
        raise HTTPException(401, "Unknown API key.", {"WWW-Authenticate": "APIKey"})
    return sent


def by_plan(name: str) -> Callable[..., Any]:
    async def limit(key: Annotated[str, Depends(issued_key)]) -> str:
        return PLANS[settings.api_keys[key]][name]

    return limit


api_key = hashed(issued_key, secret)

# Routes

protected = RateLimit("protected", "10/minute")
strict = RateLimit("strict", "5/10s")
history = RateLimit("history", by_plan("history"), by=api_key)


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


who_logs_in = hashed(attempt, secret)
# Refused attempts count too, so trying again does not help.
login = RateLimit("login", "5/minute", by=who_logs_in, strict=True, limiter=careful)


@app.post("/login", dependencies=[Depends(login)])
async def log_in(credentials: Credentials, who: Annotated[str, Depends(who_logs_in)]) -> dict[str, str]:
    expected = settings.login_password.get_secret_value()
    if not compare_digest(credentials.password.encode(), expected.encode()):
        raise HTTPException(401, "Wrong user name or password.")
    # If Redis has gone away since the attempt was counted, it is forgotten after a minute.
    with suppress(OSError, redis.ConnectionError, redis.TimeoutError):
        await careful.reset(login.key(who))
    return {"message": f"Welcome, {credentials.username}."}


class Completion(BaseModel):
    prompt: Annotated[str, Field(max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 100


async def tokens(completion: Completion) -> int:
    """The most a request may cost: its words, and those of the answer."""
    return len(completion.prompt.split()) + completion.max_tokens


client_tokens = RateLimit("client-tokens", by_plan("client-tokens"), by=api_key, cost=tokens)
all_tokens = RateLimit("all-tokens", "5000/minute", by=everyone, cost=tokens)


@app.post("/completions", dependencies=[Depends(AllOf(client_tokens, all_tokens))])
async def complete(completion: Completion, cost: Annotated[int, Depends(tokens)]) -> dict[str, Any]:
    """Charged to the client and to the service in one step, or to neither."""
    return {"completion": completion.prompt[::-1], "tokens": cost}


# The monitor

WATCHED = {
    "protected": Watched("address", "10/minute"),
    "strict": Watched("address", "5/10s"),
    "login": Watched("address and user name, as an HMAC", "5/minute", strict=True),
    "all-tokens": Watched("all clients", "5000/minute"),
}
AWAY = {
    "open": "Meanwhile requests pass without limits",
    "closed": "Meanwhile limited routes answer 503",
    "local": "Meanwhile each process of the application limits on its own",
}


def describe(name: str, who: str) -> Watched | None:
    """What the monitor tells of a client: whose the log of this name is, and its limit."""
    if plan := plan_of.get(who):
        return Watched(f"API key of the {plan} plan, as an HMAC", PLANS[plan][name]) if name in PLANS[plan] else None
    return WATCHED.get(name)


if settings.monitor:
    policies = [(name, watched.limit) for name, watched in WATCHED.items()]
    policies += [(f"{name}, {plan}", limit) for plan, limits in PLANS.items() for name, limit in limits.items()]
    away = f"{AWAY[settings.rate_limit_fail]}, and /login answers 503."
    monitor = Monitor(settings.redis_url, settings.rate_limit_timeout, describe, policies, away)
    monitor.install(app)

    @app.get("/monitor/logs", include_in_schema=False)
    async def logs(
        address: Annotated[str, Depends(client_address)], key: Annotated[str, Depends(api_key)]
    ) -> dict[str, str]:
        """Where the requests of the page's form are counted."""
        return {
            "/protected": f"protected:{address}",
            "/strict": f"strict:{address}",
            "/stocks/ACME/history": f"history:{key}",
            "/login": f"login:{await who_logs_in(f'{address} demo')}",
            "/completions": f"client-tokens:{key}",
        }
