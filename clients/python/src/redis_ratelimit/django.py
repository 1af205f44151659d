"""Limits for Django: a decorator of views, and the middleware that it needs.

    # settings.py
    MIDDLEWARE = ["redis_ratelimit.django.RateLimitMiddleware", ...]
    RATELIMIT_LIMITER = Limiter("redis://localhost:6379")

    # views.py
    @RateLimit("reports", "10/minute")
    def reports(request): ...

Settings: `RATELIMIT_LIMITER`, the limiter of all limits that name none; `RATELIMIT_LIMITS`, a list of `RateLimit` for
all requests; `RATELIMIT_REFUSE`, a function of the request and a `Refusal` that makes the answer to a refused request.
The last may be the path of such a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

import asgiref.sync
from asgiref.sync import markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from . import Limiter, wsgi
from ._limits import Limit
from ._web import PROBLEM, Bill, Refusal, Rule, Status, address_name, key
from .wsgi import hashed

__all__ = ["RateLimit", "RateLimitMiddleware", "Refusal", "client_address", "everyone", "hashed", "problem"]

View = TypeVar("View", bound=Callable[..., Any])
_BILL = "redis_ratelimit"


def client_address(request: HttpRequest) -> str:
    """The client's address, as the server found it: it decides which proxies may name it. Of IPv6 it is the /64."""
    return address_name(request.META.get("REMOTE_ADDR"))


def everyone(request: HttpRequest) -> str:
    """One log for all clients together."""
    return "everyone"


def problem(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """The usual answer to a refused request: application/problem+json."""
    return HttpResponse(refusal.body, status=refusal.status, content_type=PROBLEM)


class RateLimit:
    """A limit for each client, as a decorator of a view: `@RateLimit("reports", "10/second", "500/hour")`. For a class,
    `@method_decorator(RateLimit(...), name="dispatch")`.

    * `name`: limits of the same name share one log for each client, so a request to one counts for the others.
    * `limits`: from 1 to 8, all or nothing. Or a function of the request that returns them; None exempts.
    * `by`: whose log it is: a function of the request that returns a str or an int, or None for the client's address.
    * `cost`: what a request weighs, an int from 0 or a function of the request. 0 charges nothing and is never refused.
    * `strict`: refused requests count too, so only waiting helps.
    * `refund_if`: answers that do not count: a status, several, or a function of the status. What was refused is never
      given back.
    * `limiter`: another one than that of the settings.

    Async views are limited by the same limiter, in a thread.
    """

    def __init__(
        self,
        name: str,
        *limits: str | Limit | Callable[[HttpRequest], Any],
        by: Callable[[HttpRequest], Any] = client_address,
        cost: int | Callable[[HttpRequest], Any] = 1,
        strict: bool = False,
        refund_if: Status = (),
        limiter: Limiter | None = None,
    ) -> None:
        if limiter is not None:
            wsgi.check(limiter)
        self.rule: Rule[Limiter] = Rule(name, limits, by, cost, strict, refund_if, limiter)

    def __call__(self, view: View) -> View:
        @wraps(view)
        def limited(request: HttpRequest, *arguments: Any, **more: Any) -> Any:
            refused = self.charge(request)
            return view(request, *arguments, **more) if refused is None else refused

        @wraps(view)
        async def limited_async(request: HttpRequest, *arguments: Any, **more: Any) -> Any:
            refused = await sync_to_async(self.charge, thread_sensitive=False)(request)
            return await view(request, *arguments, **more) if refused is None else refused

        return cast(View, limited_async if _is_async(view) else limited)

    def charge(self, request: HttpRequest) -> HttpResponseBase | None:
        """Charges a request. The answer to it if it is refused, else None."""
        bill: Bill[Limiter] | None = getattr(request, _BILL, None)
        if bill is None:
            raise ImproperlyConfigured("redis_ratelimit.django.RateLimitMiddleware is missing in MIDDLEWARE")
        refusal = wsgi.charge(bill, self.rule, request, client_address(request))
        if refusal is None:
            return None
        refuse: Any = getattr(settings, "RATELIMIT_REFUSE", problem)
        return cast(HttpResponseBase, (import_string(refuse) if isinstance(refuse, str) else refuse)(request, refusal))

    def key(self, client: str | int) -> str:
        """The key of a client's log, for the limiter's `reset` and `peek`. `client` is what `by` returned."""
        return key(self.rule.name, client)


def _is_async(function: Callable[..., Any]) -> bool:
    # That of inspect does not see the marks of class-based views before Python 3.12.
    return asgiref.sync.iscoroutinefunction(function)  # pyright: ignore[reportDeprecated]


class RateLimitMiddleware:
    """Adds the headers to answers, and applies `RATELIMIT_LIMITS`, also to requests that find no view. Functions of
    theirs see what the middleware before this one has added to the request."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        limiter = getattr(settings, "RATELIMIT_LIMITER", None)
        self._limiter = None if limiter is None else wsgi.check(limiter)
        self._limits: list[RateLimit] = list(getattr(settings, "RATELIMIT_LIMITS", ()))
        self._async = _is_async(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._async:
            return self._serve(request)
        refused = self._before(request)
        return self._after(request, self._get_response(request) if refused is None else refused)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        refused = await sync_to_async(self._before, thread_sensitive=False)(request)
        response = await self._get_response(request) if refused is None else refused
        return await sync_to_async(self._after, thread_sensitive=False)(request, response)

    def _before(self, request: HttpRequest) -> HttpResponseBase | None:
        setattr(request, _BILL, Bill(self._limiter))
        return next((refused for limit in self._limits if (refused := limit.charge(request)) is not None), None)

    def _after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        bill: Bill[Limiter] = getattr(request, _BILL)
        wsgi.settle(bill, response.status_code)
        for name, value in bill.headers().items():
            response.headers[name] = value
        return response
