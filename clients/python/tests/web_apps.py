"""The same application in each framework but FastAPI. A request chooses the status of its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import django
import flask
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path as django_path
from redis_ratelimit import Limiter, aio, asgi, wsgi
from redis_ratelimit import django as for_django
from redis_ratelimit import flask as for_flask

Rules = dict[str, tuple[list[Any], dict[str, Any]]]


def rules(header: Callable[[Any, str], str | None], query: Callable[[Any], str], framework: Any) -> Rules:
    """The limits of each path, as arguments after the name. The functions read requests of one framework."""

    def user(request: Any) -> str | None:
        return header(request, "X-User")

    def plan(request: Any) -> Any:
        return {"free": "2/minute", "pro": ["4/minute", "6/hour"], "staff": None}[header(request, "X-Plan") or "free"]

    def units(request: Any) -> Any:
        number = int(parse_qs(query(request))["units"][0])
        return number if number != 13 else "thirteen"

    return {
        "/plain": (["2/minute"], {}),
        "/tiered": (["2/10s", "3/hour"], {"by": user}),
        "/plans": ([plan], {"by": user}),
        "/weighed": (["10/minute"], {"cost": units}),
        "/failures": (["2/minute"], {"refund_if": lambda status: status >= 400}),
        "/teapots": (["1/minute"], {"refund_if": {418, 420}}),
        "/strict": (["1/minute"], {"by": framework.everyone, "strict": True}),
        "/secret": (["1/minute"], {"by": framework.hashed(user, "secret")}),
        "/wrong/by": (["2/minute"], {"by": lambda request: 1.5}),
        "/wrong/limits": ([lambda request: "many"], {}),
    }


def status_of(query: str) -> int:
    status = int(parse_qs(query).get("status", ["200"])[0])
    if status == 500:
        raise RuntimeError("a fault of the handler")
    return status


# ASGI and WSGI


def asgi_app(limiter: aio.Limiter, refuse: Any = asgi.problem) -> Any:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": status_of(scope["query_string"].decode()), "headers": []}
        await send({**start, "headers": [(b"x-of", b"the handler")]})
        await send({"type": "http.response.body", "body": b"hello"})

    def header(scope: Any, name: str) -> str | None:
        found = dict(scope["headers"]).get(name.lower().encode())
        return None if found is None else found.decode()

    async def asynchronous(scope: Any) -> str | None:
        return header(scope, "X-User")

    known = rules(header, lambda scope: scope["query_string"].decode(), asgi)
    known["/plans"][1]["by"] = asynchronous
    apps = {
        path: asgi.RateLimitMiddleware(handler, limiter, path[1:].replace("/", "-"), *limits, refuse=refuse, **options)
        for path, (limits, options) in known.items()
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            # As the middleware passes it on.
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await apps.get(scope["path"], handler)(scope, receive, send)

    return asgi.RateLimitMiddleware(app, limiter, "all", "1000/hour", by=asgi.everyone)


def wsgi_app(limiter: Limiter, refuse: Any = wsgi.problem) -> Any:
    def handler(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(f"{status_of(environ['QUERY_STRING'])} Chosen", [("X-Of", "the handler")])
        return [b"hello"]

    known = rules(
        lambda environ, name: environ.get(f"HTTP_{name.upper().replace('-', '_')}"),
        lambda environ: environ["QUERY_STRING"],
        wsgi,
    )
    apps = {
        path: wsgi.RateLimitMiddleware(handler, limiter, path[1:].replace("/", "-"), *limits, refuse=refuse, **options)
        for path, (limits, options) in known.items()
    }

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        return apps.get(environ["PATH_INFO"], handler)(environ, start_response)

    return wsgi.RateLimitMiddleware(app, limiter, "all", "1000/hour", by=wsgi.everyone)


# Flask


def flask_app(limiter: Limiter, refuse: Any = None) -> flask.Flask:
    app = flask.Flask(__name__)
    app.logger.disabled = True
    for_flask.install(app, limiter, for_flask.RateLimit("all", "1000/hour", by=for_flask.everyone))

    def view() -> Any:
        return "hello", status_of(flask.request.query_string.decode()), {"X-Of": "the handler"}

    known = rules(
        lambda request, name: request.headers.get(name), lambda request: request.query_string.decode(), for_flask
    )
    app.add_url_rule("/free", "/free", view)
    for path, (limits, options) in known.items():
        app.add_url_rule(path, path, for_flask.RateLimit(path[1:].replace("/", "-"), *limits, **options)(view))
    if refuse is not None:
        app.register_error_handler(for_flask.RateLimitExceeded, refuse)
    return app


# Django

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["redis_ratelimit.django.RateLimitMiddleware"],
    RATELIMIT_LIMITS=[for_django.RateLimit("all", "1000/hour", by=for_django.everyone)],
    LOGGING_CONFIG=None,
)
django.setup()


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", status=status_of(request.META["QUERY_STRING"]), headers={"X-Of": "the handler"})


async def async_view(request: HttpRequest) -> HttpResponse:
    return view(request)


_known = rules(
    lambda request, name: request.headers.get(name), lambda request: request.META["QUERY_STRING"], for_django
)
urlpatterns = [django_path("free", view)]
for _path, (_limits, _options) in _known.items():
    _limit = for_django.RateLimit(_path[1:].replace("/", "-"), *_limits, **_options)
    urlpatterns += [django_path(_path[1:], _limit(view)), django_path(f"async{_path}", _limit(async_view))]


def django_app(limiter: Limiter, refuse: Any = for_django.problem, asynchronous: bool = False) -> Any:
    settings.RATELIMIT_LIMITER, settings.RATELIMIT_REFUSE = limiter, refuse
    return ASGIHandler() if asynchronous else WSGIHandler()
