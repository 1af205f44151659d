"""Limits as decorators of Flask.

app = Flask(__name__)
install(app, Limiter("redis://localhost:6379"))

@app.get("/reports")
@RateLimit("reports", "10/minute")
def reports(): ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from flask import Flask, Request, Response, current_app, g, request
from werkzeug.exceptions import TooManyRequests

from . import Limiter, wsgi
from ._limits import Limit
from ._web import PROBLEM, Bill, Refusal, Rule, Status, address_name, key
from .wsgi import hashed

__all__ = ["RateLimit", "RateLimitExceeded", "Refusal", "client_address", "everyone", "hashed", "install"]

View = TypeVar("View", bound=Callable[..., Any])


def install(app: Flask, limiter: Limiter | None = None, *limits: RateLimit) -> None:
    """Prepares an application for `RateLimit`: answers get the headers. Call it once.

    `limiter` is used by all limits that name none. `limits` apply to all requests, also those that find no route. To
    answer refused requests in another way, register a handler: `@app.errorhandler(RateLimitExceeded)`. It need not care
    about headers.
    """
    if limiter is not None:
        wsgi.check(limiter)

    def before() -> None:
        g.redis_ratelimit = Bill(limiter)
        for limit in limits:
            limit.charge()

    def after(response: Response) -> Response:
        bill: Bill[Limiter] | None = g.get("redis_ratelimit")
        if bill is not None:
            wsgi.settle(bill, response.status_code)
            for name, value in bill.headers().items():
                response.headers.add(name, value)
        return response

    def teardown(error: BaseException | None) -> None:
        bill: Bill[Limiter] | None = g.pop("redis_ratelimit", None)
        # Where exceptions propagate, as in debugging, there was no answer.
        if error is not None and bill is not None:
            wsgi.settle(bill, 500)

    app.before_request(before)
    app.after_request(after)
    app.teardown_request(teardown)


class RateLimitExceeded(TooManyRequests):
    """A request was refused; `refusal` says why. Its code is 429, or 503 where Redis is away and the limiter says
    `fail="closed"`. A handler of 429 gets both."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal.problem["detail"]))
        self.code = refusal.status
        self.refusal = refusal

    def get_response(self, *_: Any, **__: Any) -> Response:
        return Response(self.refusal.body, self.code, mimetype=PROBLEM)


def client_address(request: Request) -> str:
    """The client's address, as the server found it. `werkzeug.middleware.proxy_fix` names the proxies that may tell it.
    Of IPv6 it is the /64."""
    return address_name(request.remote_addr)


def everyone(request: Request) -> str:
    """One log for all clients together."""
    return "everyone"


class RateLimit:
    """A limit for each client, as a decorator below the route's: `@RateLimit("reports", "10/second", "500/hour")`.

    * `name`: limits of the same name share one log for each client, so a request to one counts for the others.
    * `limits`: from 1 to 8, all or nothing. Or a function of the request that returns them; None exempts.
    * `by`: whose log it is: a function of the request that returns a str or an int, or None for the client's address.
    * `cost`: what a request weighs, an int from 0 or a function of the request. 0 charges nothing and is never refused.
    * `strict`: refused requests count too, so only waiting helps.
    * `refund_if`: answers that do not count: a status, several, or a function of the status. What was refused is never
      given back.
    * `limiter`: another one than the application's.
    """

    def __init__(
        self,
        name: str,
        *limits: str | Limit | Callable[[Request], Any],
        by: Callable[[Request], Any] = client_address,
        cost: int | Callable[[Request], Any] = 1,
        strict: bool = False,
        refund_if: Status = (),
        limiter: Limiter | None = None,
    ) -> None:
        if limiter is not None:
            wsgi.check(limiter)
        self.rule: Rule[Limiter] = Rule(name, limits, by, cost, strict, refund_if, limiter)

    def __call__(self, view: View) -> View:
        @wraps(view)
        def limited(*arguments: Any, **more: Any) -> Any:
            self.charge()
            return current_app.ensure_sync(view)(*arguments, **more)

        return limited  # type: ignore[return-value]

    def charge(self) -> None:
        """Charges the request that is being served. Raises `RateLimitExceeded` if it is refused.

        For all requests to a blueprint: `blueprint.before_request(limit.charge)`.
        """
        bill: Bill[Limiter] | None = g.get("redis_ratelimit")
        if bill is None:
            raise RuntimeError("install(app, limiter) is missing")
        refusal = wsgi.charge(bill, self.rule, request, client_address(request))
        if refusal is not None:
            raise RateLimitExceeded(refusal)

    def key(self, client: str | int) -> str:
        """The key of a client's log, for the limiter's `reset` and `peek`. `client` is what `by` returned."""
        return key(self.rule.name, client)
