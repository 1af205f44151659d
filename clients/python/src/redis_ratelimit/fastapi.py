"""Limits as dependencies of FastAPI.

    app = FastAPI()
    install(app, Limiter("redis://localhost:6379"))

    @app.get("/reports", dependencies=[Depends(RateLimit("reports", "10/minute"))])

For Starlette without FastAPI there is `redis_ratelimit.asgi`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, HTTPException, Response, WebSocket, routing
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from . import asgi
from ._answer import Answer
from ._limits import Limit
from ._web import PROBLEM, Bill, Demand, Refusal, Rule, Status, digest, key
from .aio import Limiter
from .asgi import RateLimitMiddleware

__all__ = [
    "AllOf",
    "RateLimit",
    "RateLimitExceeded",
    "RateLimitMiddleware",
    "Refusal",
    "client_address",
    "everyone",
    "hashed",
    "install",
]

_BILL = "redis_ratelimit.bill"


def install(app: FastAPI, limiter: Limiter | None = None) -> None:
    """Prepares an application for `RateLimit`: answers get the headers, refused requests their answer, and the OpenAPI
    document its 429. Call it once, before the first request.

    `limiter` is used by all limits that name none. To answer refused requests in another way, register a handler:
    `@app.exception_handler(RateLimitExceeded)`. It need not care about headers.
    """
    if limiter is not None:
        asgi.check(limiter)
    if app.middleware_stack is not None:
        raise RuntimeError("install(app, limiter) must come before the first request")
    app.exception_handlers.setdefault(RateLimitExceeded, _refuse)
    build, describe = app.build_middleware_stack, app.openapi

    # Outside of all middleware, so that also the answer to an unhandled exception gets the headers.
    def build_middleware_stack() -> ASGIApp:
        inner: Any = build()

        async def outer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await inner(scope, receive, send)
                return
            scope[_BILL] = bill = Bill(limiter)
            await asgi.serve(inner, bill, scope, receive, send)

        return outer

    def openapi() -> dict[str, Any]:
        schema = describe()
        _describe(app, schema)
        return schema

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]
    app.openapi = openapi  # type: ignore[method-assign]


class RateLimitExceeded(HTTPException):
    """A request was refused; `refusal` says why. Its status is 429, or 503 where Redis is away and the limiter says
    `fail="closed"`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status, str(refusal.problem["detail"]))
        self.refusal = refusal


async def _refuse(request: HTTPConnection, error: Exception) -> Any:
    assert isinstance(error, RateLimitExceeded)
    response = Response(error.refusal.body, error.refusal.status, media_type=PROBLEM)
    if not isinstance(request, WebSocket):
        return response
    # Older versions of Starlette do not send what is returned.
    start = {"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers}
    await request.send(start)
    await request.send({"type": "websocket.http.response.body", "body": error.refusal.body})
    return None


# Who is limited


async def client_address(request: HTTPConnection) -> str:
    """The client's address, as the server found it: it decides which proxies may name it (uvicorn's
    `forwarded_allow_ips`). Of IPv6 it is the /64, as a subscriber has at least that many addresses."""
    return asgi.client_address(request.scope)


async def everyone() -> str:
    """One log for all clients together."""
    return "everyone"


def hashed(source: Callable[..., Any], secret: str) -> Callable[..., Any]:
    """Who, from something that must not be stored: `by=hashed(APIKeyHeader(name="X-API-Key"), secret)`.

    Everyone who may look into Redis sees keys: in MONITOR, the slow log, backups. So this is an HMAC. None, an optional
    key that was not sent, stays None.
    """

    async def who(value: Annotated[Any, Depends(source)]) -> str | None:
        return None if value is None else digest(value, secret)

    # Annotations that are text cannot name `source`.
    who.__annotations__["value"] = Annotated[Any, Depends(source)]
    return who


# Limits


class _Dependency:
    """FastAPI calls equal dependencies once per request, for example one on a router and the same on its route."""

    _spec: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, _Dependency) and self._spec == other._spec

    def __hash__(self) -> int:
        return hash(self._spec)


class RateLimit(_Dependency):
    """A limit for each client, as a dependency: `Depends(RateLimit("reports", "10/second", "500/hour"))`.

    * `name`: limits of the same name share one log for each client, so a request to one counts for the others.
    * `limits`: from 1 to 8, all or nothing. Or one dependency that returns them, for plans and tenants; None exempts.
    * `by`: whose log it is: a dependency that returns a str or an int, or None for the client's address.
    * `cost`: what a request weighs, an int from 0 or a dependency. 0 charges nothing, is never refused, and shows what
      is left.
    * `strict`: refused requests count too, so only waiting helps.
    * `refund_if`: answers that do not count: a status, several, or a function of the status, such as
      `lambda status: status >= 400`. What was refused is never given back.
    * `limiter`: another one than the application's.

    A function of the request is such a dependency: `def plan(request: Request) -> str | None`. As a dependency itself,
    a limit's value is an `Answer`, or None for an exempt request. A WebSocket is refused before it is accepted.
    """

    def __init__(
        self,
        name: str,
        *limits: str | Limit | Callable[..., Any],
        by: Callable[..., Any] = client_address,
        cost: int | Callable[..., Any] = 1,
        strict: bool = False,
        refund_if: Status = (),
        limiter: Limiter | None = None,
    ) -> None:
        if limiter is not None:
            asgi.check(limiter)
        if not callable(refund_if) and not isinstance(refund_if, int):
            refund_if = frozenset(refund_if)
        self.rule: Rule[Limiter] = Rule(name, limits, by, cost, strict, refund_if, limiter)
        self._spec = (name, self.rule.limits, by, self.rule.cost, strict, refund_if, limiter)
        self.__signature__ = _signature([self.rule])

    def key(self, client: str | int) -> str:
        """The key of a client's log, for the limiter's `reset` and `peek`. `client` is what `by` returned."""
        return key(self.rule.name, client)

    async def __call__(self, request: HTTPConnection, **values: Any) -> Answer | None:
        return (await _charge(request, [self.rule], values))[0]


class AllOf(_Dependency):
    """Several limits in one step: a request is charged to all or none.

        Depends(AllOf(RateLimit("user", "10/second", by=user), RateLimit("team", "1000/minute", by=team)))

    `strict` and `limiter` must be the same in all. In a cluster the keys must share a hash tag.
    """

    def __init__(self, *limits: RateLimit) -> None:
        self.rules = [limit.rule for limit in limits]
        if not 1 <= len({rule.name for rule in self.rules}) == len(limits):
            raise ValueError("AllOf takes limits of different names")
        if len({(rule.strict, rule.limiter) for rule in self.rules}) > 1:
            raise ValueError("AllOf takes limits that agree on strict and limiter")
        self._spec = limits
        self.__signature__ = _signature(self.rules)

    async def __call__(self, request: HTTPConnection, **values: Any) -> list[Answer | None]:
        return await _charge(request, self.rules, values)


def _signature(rules: Sequence[Rule[Limiter]]) -> Signature:
    """What FastAPI passes to a limit: the request, and for each rule its values."""
    request = Parameter("request", Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
    parameters = [request]
    for i, rule in enumerate(rules):
        for name, value in (("limits", rule.limits), ("by", rule.by), ("cost", rule.cost)):
            if callable(value):
                parameters.append(Parameter(f"{name}_{i}", Parameter.KEYWORD_ONLY, default=Depends(value)))
    return Signature(parameters)


async def _charge(
    request: HTTPConnection, rules: Sequence[Rule[Limiter]], values: dict[str, Any]
) -> list[Answer | None]:
    bill: Bill[Limiter] | None = request.scope.get(_BILL)
    if bill is None:
        raise RuntimeError("install(app, limiter) is missing")
    # Every fault of the program is found before anything is charged.
    demands: list[Demand[Limiter]] = []
    for i, rule in enumerate(rules):
        limits = values.get(f"limits_{i}", rule.limits)
        if limits is None:
            continue
        client = values[f"by_{i}"]
        client = asgi.client_address(request.scope) if client is None else client
        demands.append(bill.demand(rule, client, limits, values.get(f"cost_{i}", rule.cost)))
    if not demands:
        return [None] * len(rules)
    found = await asgi.charge(bill, demands)
    if not all(found):
        raise RateLimitExceeded(Refusal.of(demands, found))
    known = {demand.rule.name: answer for demand, answer in zip(demands, found, strict=True)}
    return [known.get(rule.name) for rule in rules]


# OpenAPI


def _describe(app: FastAPI, schema: dict[str, Any]) -> None:
    # iter_route_contexts knows what routers add to a route; in older versions of FastAPI the route itself does.
    contexts = getattr(routing, "iter_route_contexts", iter)
    for route in cast("Iterable[Any]", contexts(app.routes)):
        if not _is_limited(getattr(route, "dependant", None)):
            continue
        operations = schema.get("paths", {}).get(route.path_format, {})
        for method in getattr(route, "methods", None) or ():  # a WebSocket has none
            if method.lower() in operations:
                operations[method.lower()].setdefault("responses", {}).setdefault("429", _TOO_MANY)


def _is_limited(dependant: Any) -> bool:
    return dependant is not None and (
        isinstance(dependant.call, (RateLimit, AllOf)) or any(map(_is_limited, dependant.dependencies))
    )


_TEXT = {"type": "string"}
_TOO_MANY: dict[str, Any] = {
    "description": "Too Many Requests",
    "headers": {
        "Retry-After": {"description": "Seconds; missing if no wait helps.", "schema": {"type": "integer"}},
        "RateLimit-Policy": {"description": "The limits.", "schema": _TEXT},
        "RateLimit": {"description": "What is left of them.", "schema": _TEXT},
    },
    "content": {
        PROBLEM: {
            "schema": {
                "type": "object",
                "title": "Problem",
                "properties": {
                    "type": _TEXT,
                    "title": _TEXT,
                    "status": {"type": "integer"},
                    "detail": _TEXT,
                    "violated-policies": {"type": "array", "items": _TEXT},
                },
            }
        }
    },
}
