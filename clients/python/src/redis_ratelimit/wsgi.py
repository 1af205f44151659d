"""Limits for any WSGI application.

app = RateLimitMiddleware(app, Limiter("redis://localhost:6379"), "api", "100/minute")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from . import Limiter
from ._limits import Limit
from ._web import PROBLEM, Bill, Refusal, Rule, Status, address_name, digest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["RateLimitMiddleware", "Refusal", "client_address", "everyone", "hashed", "problem"]

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = "Callable[[Environ, StartResponse], Iterable[bytes]]"


def client_address(environ: Environ) -> str:
    """The client's address, as the server found it: it decides which proxies may name it. Of IPv6 it is the /64."""
    return address_name(environ.get("REMOTE_ADDR"))


def everyone(environ: Environ) -> str:
    """One log for all clients together."""
    return "everyone"


def hashed(by: Callable[[Any], Any], secret: str) -> Callable[[Any], str | None]:
    """What `by` returns, as an HMAC: for API keys and other things that must not be stored. None stays None."""

    def who(request: Any) -> str | None:
        value = by(request)
        return None if value is None else digest(value, secret)

    return who


def problem(refusal: Refusal) -> App:
    """The usual answer to a refused request: application/problem+json."""

    def respond(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        status = HTTPStatus(refusal.status)
        headers = [("Content-Type", PROBLEM), ("Content-Length", str(len(refusal.body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [refusal.body]

    return respond


class RateLimitMiddleware:
    """A limit on all requests of an application.

    `limiter` is a `redis_ratelimit.Limiter`. The other arguments are those of the middleware in `redis_ratelimit.asgi`,
    with functions of the environ, and `refuse` makes a WSGI application.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        name: str,
        *limits: str | Limit | Callable[[Environ], Any],
        by: Callable[[Environ], Any] = client_address,
        cost: int | Callable[[Environ], Any] = 1,
        strict: bool = False,
        refund_if: Status = (),
        refuse: Callable[[Refusal], App] = problem,
    ) -> None:
        self._app, self._limiter, self._refuse = app, check(limiter), refuse
        self._rule: Rule[Limiter] = Rule(name, limits, by, cost, strict, refund_if, limiter)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        bill: Bill[Limiter] = Bill(self._limiter)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            settle(bill, int(status.split(" ", 1)[0]))
            return start_response(status, [*headers, *bill.headers().items()], exc_info)

        refusal = charge(bill, self._rule, environ, client_address(environ))
        app = self._app if refusal is None else self._refuse(refusal)
        try:
            return app(environ, start)
        except Exception:
            settle(bill, 500)
            raise


# What Flask and Django use as well


def check(limiter: Limiter) -> Limiter:
    if not isinstance(limiter, Limiter):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("the limiter must be a redis_ratelimit.Limiter")
    return limiter


def charge(bill: Bill[Limiter], rule: Rule[Limiter], request: Any, address: str) -> Refusal | None:
    """Charges a request by a rule, whose functions are given the request. None if it may go on."""
    limits = rule.limits(request) if callable(rule.limits) else rule.limits
    if limits is None:
        return None
    client = rule.by(request)
    cost = rule.cost(request) if callable(rule.cost) else rule.cost
    demand = bill.demand(rule, address if client is None else client, limits, cost)
    tiers = len(demand.limits) > 1
    if demand.cost == 0:
        answer = demand.limiter.peek(demand.key, *demand.limits, cost=0, tiers=tiers)
    else:
        answer = demand.limiter.hit(demand.key, *demand.limits, cost=demand.cost, strict=rule.strict, tiers=tiers)
    bill.items.append((demand, answer))
    return None if answer else Refusal.of([demand], [answer])


def settle(bill: Bill[Limiter], status: int) -> None:
    """Gives back what an answer with this status does not cost."""
    for limiter, key, units in bill.refunds(status):
        limiter.refund(key, units)
