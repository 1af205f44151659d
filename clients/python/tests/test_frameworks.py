"""Limits in ASGI, WSGI, Flask and Django, over HTTP: the applications of `web_apps.py`, which all do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import web
import web_apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.views import View
from flask import Blueprint, Flask
from flask import request as flask_request
from redis_ratelimit import Limiter, aio, asgi, wsgi
from redis_ratelimit import django as for_django
from redis_ratelimit import flask as for_flask
from servers import Server
from web import statuses

FRAMEWORKS = ["asgi", "wsgi", "flask", "django", "django async"]
RUNS = [*((framework, "module") for framework in FRAMEWORKS), *((framework, "script") for framework in FRAMEWORKS)]


def own_asgi(refusal: asgi.Refusal) -> Any:
    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 420, "headers": []})
        await send({"type": "http.response.body", "body": str(refusal.retry_after).encode()})

    return respond


def own_wsgi(refusal: wsgi.Refusal) -> Any:
    def respond(environ: Any, start_response: Any) -> Any:
        start_response("420 Calm", [])
        return [str(refusal.retry_after).encode()]

    return respond


def own_flask(error: for_flask.RateLimitExceeded) -> Any:
    return str(error.refusal.retry_after), 420


def own_django(request: HttpRequest, refusal: for_django.Refusal) -> HttpResponse:
    return HttpResponse(str(refusal.retry_after), status=420)


@contextmanager
def served(framework: str, url: str, own: bool = False, **options: Any) -> Iterator[httpx.Client]:
    if framework == "asgi":
        app = web_apps.asgi_app(aio.Limiter(url, **options), own_asgi if own else asgi.problem)
    elif framework == "wsgi":
        app = web_apps.wsgi_app(Limiter(url, **options), own_wsgi if own else wsgi.problem)
    elif framework == "flask":
        app = web_apps.flask_app(Limiter(url, **options), own_flask if own else None)
    else:
        refuse = "test_frameworks.own_django" if own else for_django.problem
        app = web_apps.django_app(Limiter(url, **options), refuse, asynchronous=framework != "django")
    with (web.asgi if framework in ("asgi", "django async") else web.wsgi)(app) as client:
        if framework == "django async":
            client.base_url = client.base_url.join("/async/")
        yield client


@pytest.fixture(scope="module", params=RUNS, ids=" ".join)
def running(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Iterator[tuple[httpx.Client, Server]]:
    framework, engine = request.param
    server = start(module=engine == "module")
    with served(framework, server.url, engine=engine, refusal_cache=0) as client:
        yield client, server


@pytest.fixture
def server(running: tuple[httpx.Client, Server]) -> Server:
    running[1].client().flushall()
    return running[1]


@pytest.fixture
def app(running: tuple[httpx.Client, Server], server: Server) -> httpx.Client:
    return running[0]


def rows(response: httpx.Response, name: str) -> list[str]:
    """The items of a header, but that of the limit on the whole application."""
    return [item for item in response.headers.get(name, "").split(", ") if item and not item.startswith('"all"')]


def test_a_limit_refuses_and_answers_have_the_headers(app: httpx.Client) -> None:
    first, _, refused = (app.get("plain") for _ in range(3))
    assert (first.status_code, first.text, first.headers["X-Of"]) == (200, "hello", "the handler")
    assert rows(first, "RateLimit-Policy") == ['"plain";q=2;w=60']
    assert rows(first, "RateLimit") == ['"plain";r=1;t=60']
    assert '"all";q=1000;w=3600' in first.headers["RateLimit-Policy"]
    assert refused.status_code == 429
    wait = int(refused.headers["Retry-After"])
    assert 50 <= wait <= 60
    assert rows(refused, "RateLimit") == [f'"plain";r=0;t={wait}']
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert refused.json()["violated-policies"] == ["plain"]
    assert refused.json()["detail"] == f"Try again in {wait} s."
    assert rows(app.get("free"), "RateLimit") == []


def test_requests_at_the_same_time(app: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: app.get("plain").status_code, range(48)))
    assert sorted(found) == [200] * 2 + [429] * 46


def test_several_windows_are_told_apart(app: httpx.Client) -> None:
    first, _, refused = (app.get("tiered", headers={"X-User": "a"}) for _ in range(3))
    assert rows(first, "RateLimit-Policy") == ['"tiered-2/10s";q=2;w=10', '"tiered-3/1h";q=3;w=3600']
    assert rows(first, "RateLimit") == ['"tiered-2/10s";r=1;t=10', '"tiered-3/1h";r=2;t=3600']
    assert refused.json()["violated-policies"] == ["tiered-2/10s"]
    assert app.get("tiered", headers={"X-User": "b"}).status_code == 200


def test_failures_do_not_count_and_refusals_are_not_given_back(app: httpx.Client) -> None:
    for status in (404, 500, 503):
        responses = [app.get(f"failures?status={status}") for _ in range(3)]
        assert [response.status_code for response in responses] == [status] * 3
    assert statuses(app, "failures", 5) == [200, 200, 429, 429, 429]
    assert statuses(app, "teapots?status=418", 2) == [418, 418]
    assert statuses(app, "teapots?status=404", 2) == [404, 429]


def test_limits_depend_on_the_plan_and_may_exempt(app: httpx.Client) -> None:
    assert statuses(app, "plans", 3, **{"X-User": "a"}) == [200, 200, 429]
    assert statuses(app, "plans", 5, **{"X-User": "b", "X-Plan": "pro"}) == [200] * 4 + [429]
    assert statuses(app, "plans", 5, **{"X-User": "c", "X-Plan": "staff"}) == [200] * 5


def test_costs(app: httpx.Client) -> None:
    left = [app.get(f"weighed?units={units}") for units in (0, 3, 0, 8, 7, 0)]
    assert [response.status_code for response in left] == [200, 200, 200, 429, 200, 200]
    assert [rows(response, "RateLimit")[0].split(";")[1] for response in left] == ["r=10", *["r=7"] * 3, *["r=0"] * 2]
    never = app.get("weighed?units=11")
    assert (never.status_code, "Retry-After" in never.headers) == (429, False)


def test_strict_counts_refusals(app: httpx.Client, server: Server) -> None:
    assert statuses(app, "strict", 4) == [200, 429, 429, 429]
    assert Limiter(server.url).peek("rl:strict:everyone", "9/minute", cost=0).remaining == 5


@pytest.mark.parametrize("path", ["wrong/by", "wrong/limits", "weighed?units=13", "weighed?units=-1", "plain"])
def test_a_mistake_is_a_500_and_lets_nothing_pass(app: httpx.Client, server: Server, path: str) -> None:
    for suffix in ("", ":ratelimit"):
        server.client().set(f"rl:plain:127.0.0.1{suffix}", "text")
    assert statuses(app, path, 2) == [500, 500]


def test_keys(app: httpx.Client, server: Server) -> None:
    app.get("plain")
    app.get("secret", headers={"X-User": "token"})
    app.get("secret")
    names = {key.decode().removesuffix(":ratelimit") for key in server.client().keys()}
    assert names > {"rl:plain:127.0.0.1", "rl:secret:127.0.0.1", "rl:all:everyone"}
    assert len(names) == 4
    assert not any("token" in name for name in names)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_answer_of_ones_own(framework: str, start: Callable[..., Server]) -> None:
    with served(framework, start().url, own=True) as app:
        *_, refused = (app.get("plain") for _ in range(3))
        assert refused.status_code == 420
        assert 50 < float(refused.text) <= 60
        assert rows(refused, "RateLimit") == ['"plain";r=0;t=60']
        assert refused.headers["Retry-After"] == "60"


def test_flask_by_blueprint_async_and_a_handler_of_the_status(start: Callable[..., Server]) -> None:
    app, blueprint, limit = Flask("name"), Blueprint("part", "part"), for_flask.RateLimit("part", "2/minute")
    for_flask.install(app, Limiter(start().url))
    blueprint.before_request(limit.charge)
    blueprint.add_url_rule("/part", "part", lambda: "hello")
    app.register_blueprint(blueprint)
    app.register_error_handler(429, lambda error: (f"calm: {error.code}", 420))

    @app.get("/async")
    @for_flask.RateLimit("async", "1/minute", refund_if=500)
    async def asynchronous() -> str:
        if flask_request.args:
            raise RuntimeError("a fault of the handler")
        return "hello"

    with web.wsgi(app) as client:
        assert statuses(client, "/part", 3) == [200, 200, 420]
        assert client.get("/part").text == "calm: 429"
    # Exceptions propagate to the test, and so there is no answer that could be refunded for.
    app.testing = True
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a fault"):
            app.test_client().get("/async?fail")
    assert [app.test_client().get("/async").status_code for _ in range(2)] == [200, 420]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_django_by_class(asynchronous: bool, start: Callable[..., Server]) -> None:
    limit = for_django.RateLimit("class", "1/minute", limiter=Limiter(start().url))

    class Sync(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("hello")

    class Async(View):
        async def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("hello")

    async def answer(request: HttpRequest) -> HttpResponse:
        return await limit(Async.as_view())(request)

    found = []
    with override_settings(RATELIMIT_LIMITER=None, RATELIMIT_LIMITS=[], RATELIMIT_REFUSE=for_django.problem):
        middleware = for_django.RateLimitMiddleware(answer if asynchronous else limit(Sync.as_view()))
        for _ in range(2):
            response: Any = middleware(RequestFactory().get("/"))
            found.append((asyncio.run(response) if asynchronous else response).status_code)
    assert found == [200, 429]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_redis(framework: str, start: Callable[..., Server]) -> None:
    server = start(fresh=True)
    server.close()
    with served(framework, server.url) as app:
        assert statuses(app, "plain", 3) == [200] * 3
        assert rows(app.get("plain"), "RateLimit") == [], "nobody knows what is left"
    with served(framework, server.url, fail="closed") as app:
        response = app.get("plain")
        assert (response.status_code, response.json()["status"]) == (503, 503)
        assert response.headers["Retry-After"] == "1"
    with served(framework, server.url, fail="local") as app:
        assert statuses(app, "plain", 3) == [200, 200, 429]


def test_a_limiter_of_the_wrong_kind_is_told_at_once() -> None:
    url = "redis://localhost"
    wrong: list[Callable[[], object]] = [
        lambda: asgi.RateLimitMiddleware(web_apps.asgi_app, Limiter(url), "name", "1/second"),  # type: ignore[arg-type]
        lambda: wsgi.RateLimitMiddleware(web_apps.wsgi_app, aio.Limiter(url), "name", "1/second"),  # type: ignore[arg-type]
        lambda: for_flask.install(Flask("name"), aio.Limiter(url)),  # type: ignore[arg-type]
        lambda: for_flask.RateLimit("name", "1/second", limiter=aio.Limiter(url)),  # type: ignore[arg-type]
        lambda: for_django.RateLimit("name", "1/second", limiter=aio.Limiter(url)),  # type: ignore[arg-type]
    ]
    for make in wrong:
        with pytest.raises(TypeError, match=r"redis_ratelimit\.(aio\.)?Limiter"):
            make()


def test_what_is_missing_is_a_mistake(start: Callable[..., Server]) -> None:
    limiter = Limiter(start().url)
    app = Flask("name")
    app.add_url_rule("/", "/", for_flask.RateLimit("name", "1/second", limiter=limiter)(lambda: "hello"))
    with pytest.raises(RuntimeError, match="install"):
        _get(app)
    with pytest.raises(ImproperlyConfigured, match="MIDDLEWARE"):
        for_django.RateLimit("name", "1/second", limiter=limiter)(web_apps.view)(HttpRequest())
    installed = Flask("name")
    for_flask.install(installed)
    installed.add_url_rule("/", "/", for_flask.RateLimit("name", "1/second")(lambda: "hello"))
    with pytest.raises(RuntimeError, match="no limiter is installed"):
        _get(installed)


def _get(app: Flask) -> Any:
    app.testing = True
    return app.test_client().get("/")
