"""Limits for any ASGI application.

app = RateLimitMiddleware(app, Limiter("redis://localhost:6379"), "api", "100/minute")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from inspect import isawaitable
from typing import Any, TypeAlias

from ._answer import Answer
from ._limits import Limit
from ._web import PROBLEM, Bill, Demand, Refusal, Rule, Status, address_name, digest
from .aio import Limiter

__all__ = ["RateLimitMiddleware", "Refusal", "client_address", "everyone", "hashed", "problem"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def client_address(scope: Scope) -> str:
    """The client's address, as the server found it: it decides which proxies may name it. Of IPv6 it is the /64."""
    client = scope.get("client")
    return address_name(client[0] if client else None)


def everyone(scope: Scope) -> str:
    """One log for all clients together."""
    return "everyone"


def hashed(by: Callable[[Scope], Any], secret: str) -> Callable[[Scope], Awaitable[str | None]]:
    """What `by` returns, as an HMAC: for API keys and other things that must not be stored. None stays None."""

    async def who(scope: Scope) -> str | None:
        value = await _result(by, scope)
        return None if value is None else digest(value, secret)

    return who


def problem(refusal: Refusal) -> App:
    """The usual answer to a refused request: application/problem+json."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "websocket.http" if scope["type"] == "websocket" else "http"
        headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(refusal.body)).encode())]
        await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": refusal.body})

    return respond


class RateLimitMiddleware:
    """A limit on all requests of an application, in whole or in part.

    * `limiter`: a `redis_ratelimit.aio.Limiter`.
    * `name`: limits of the same name share a log for each client.
    * `limits`: such as `"10/second", "500/hour"`, or one function of the scope that returns them. None exempts.
    * `by`: whose log it is: a function of the scope that returns a str or an int, or None for the client's address.
    * `cost`: what a request weighs, from 0, or a function of the scope. 0 charges nothing and is never refused.
    * `strict`: refused requests count as well.
    * `refund_if`: answers that do not count: a status, several, or a function of the status.
    * `refuse`: the ASGI application that answers a refused request. The headers are added to what it sends.

    Functions may be async. An error in them is the application's.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        name: str,
        *limits: str | Limit | Callable[[Scope], Any],
        by: Callable[[Scope], Any] = client_address,
        cost: int | Callable[[Scope], Any] = 1,
        strict: bool = False,
        refund_if: Status = (),
        refuse: Callable[[Refusal], App] = problem,
    ) -> None:
        self._app, self._limiter, self._refuse = app, check(limiter), refuse
        self._rule: Rule[Limiter] = Rule(name, limits, by, cost, strict, refund_if, limiter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        bill: Bill[Limiter] = Bill(self._limiter)

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            rule = self._rule
            limits = await _result(rule.limits, scope) if callable(rule.limits) else rule.limits
            if limits is not None:
                client = await _result(rule.by, scope)
                cost = await _result(rule.cost, scope) if callable(rule.cost) else rule.cost
                demand = bill.demand(rule, client_address(scope) if client is None else client, limits, cost)
                answers = await charge(bill, [demand])
                if not answers[0]:
                    return await self._refuse(Refusal.of([demand], answers))(scope, receive, send)
            await self._app(scope, receive, send)

        await serve(limited, bill, scope, receive, send)


async def _result(function: Callable[[Scope], Any], scope: Scope) -> Any:
    found = function(scope)
    return await found if isawaitable(found) else found


def check(limiter: Limiter) -> Limiter:
    if not isinstance(limiter, Limiter):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("the limiter must be a redis_ratelimit.aio.Limiter")
    return limiter


async def charge(bill: Bill[Limiter], demands: Sequence[Demand[Limiter]]) -> list[Answer]:
    """Charges one request for all of these or none."""
    limiter, strict = demands[0].limiter, demands[0].rule.strict
    tiers = any(len(demand.limits) > 1 for demand in demands)
    costly = [demand for demand in demands if demand.cost > 0]
    if len(costly) == 1:
        (one,) = costly
        hits = [await limiter.hit(one.key, *one.limits, cost=one.cost, strict=strict, tiers=tiers)]
    elif costly:
        groups = [(demand.key, demand.limits, demand.cost) for demand in costly]
        hits = list(await limiter.hit_many(groups, strict=strict, tiers=tiers))
    else:
        hits = []
    answers: list[Answer] = []
    for demand in demands:
        if demand.cost == 0:
            answer = await limiter.peek(demand.key, *demand.limits, cost=0, tiers=tiers)
        else:
            answer = hits.pop(0)
        answers.append(answer)
        bill.items.append((demand, answer))
    return answers


async def serve(app: App, bill: Bill[Limiter], scope: Scope, receive: Receive, send: Send) -> None:
    """Runs an application that charges the bill: its answer gets the headers, and what it says is given back."""
    closed = False

    async def settle(status: int) -> None:
        for limiter, key, units in bill.refunds(status):
            await limiter.refund(key, units)

    async def send_with_headers(message: Message) -> None:
        nonlocal closed
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            await settle(message.get("status", 101))
            fields = [(name.lower().encode(), value.encode()) for name, value in bill.headers().items()]
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        elif kind == "websocket.close":
            await settle(403)
        if kind.startswith("websocket.http.") and "websocket.http.response" not in (scope.get("extensions") or {}):
            # The server knows only one refusal, a 403.
            if not closed:
                closed = True
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await send(message)

    try:
        await app(scope, receive, send_with_headers)
    except Exception:
        await settle(500)
        raise
