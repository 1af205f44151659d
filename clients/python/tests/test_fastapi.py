"""Limits in FastAPI, over HTTP: the application of `fastapi_app.py`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import fastapi_app
import httpx
import pytest
import web
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from redis_ratelimit import Limiter as SyncLimiter
from redis_ratelimit import asgi
from redis_ratelimit.aio import Limiter
from redis_ratelimit.fastapi import AllOf, RateLimit, RateLimitMiddleware, client_address, everyone, install
from servers import Server
from web import statuses
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect


@pytest.fixture(scope="module", params=["module", "script"])
def running(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Iterator[tuple[httpx.Client, Server]]:
    server = start(module=request.param == "module")
    with web.asgi(fastapi_app.build(Limiter(server.url, engine=request.param, refusal_cache=0))) as client:
        yield client, server


@pytest.fixture
def server(running: tuple[httpx.Client, Server]) -> Server:
    running[1].client().flushall()
    return running[1]


@pytest.fixture
def app(running: tuple[httpx.Client, Server], server: Server) -> httpx.Client:
    return running[0]


def keys(server: Server) -> set[str]:
    return {key.decode().removesuffix(":ratelimit") for key in server.client().keys()}


def test_a_limit_refuses_and_every_answer_has_the_headers(app: httpx.Client) -> None:
    first, _, refused = (app.get("/plain") for _ in range(3))
    assert web.fields(first) == {"ratelimit-policy": '"plain";q=2;w=60', "ratelimit": '"plain";r=1;t=60'}
    assert refused.status_code == 429
    wait = int(refused.headers["Retry-After"])
    assert 55 <= wait <= 60
    assert refused.headers["RateLimit"] == f'"plain";r=0;t={wait}'
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": f"Try again in {wait} s.",
        "violated-policies": ["plain"],
    }
    assert web.fields(app.get("/free")) == {}


def test_several_windows_are_told_apart(app: httpx.Client) -> None:
    first, _, refused = (app.get("/tiered", headers={"X-User": "a"}) for _ in range(3))
    assert first.json() == {"remaining": 1, "tiers": 2}
    assert first.headers["RateLimit-Policy"] == '"tiered-2/10s";q=2;w=10, "tiered-3/1h";q=3;w=3600'
    assert first.headers["RateLimit"] == '"tiered-2/10s";r=1;t=10, "tiered-3/1h";r=2;t=3600'
    assert refused.json()["violated-policies"] == ["tiered-2/10s"]
    assert app.get("/tiered", headers={"X-User": "b"}).status_code == 200


def test_errors_of_the_handler_have_the_headers(app: httpx.Client) -> None:
    """Also the answer to an unhandled exception, which is made outside of all middleware."""
    for status in (200, 404, 500):
        response = app.get(f"/failures?status={status}")
        assert response.status_code == status
        assert response.headers["RateLimit-Policy"] == '"failures";q=2;w=60'
    assert app.get("/streams").text == "ab"
    assert app.get("/streams").headers["RateLimit"].startswith('"streams";r=0;')


def test_failures_do_not_count_and_refusals_are_not_given_back(app: httpx.Client, server: Server) -> None:
    assert statuses(app, "/failures?status=404", 5) == [404] * 5
    assert statuses(app, "/failures?status=500", 3) == [500] * 3
    # The refusals have a status of 429, for which the rule gives back.
    assert statuses(app, "/failures", 6) == [200, 200, 429, 429, 429, 429]
    assert statuses(app, "/invalid?number=x", 3) == [422] * 3
    assert statuses(app, "/invalid?number=1", 3) == [200, 200, 429]


def test_limits_depend_on_the_plan_and_may_exempt(app: httpx.Client) -> None:
    assert statuses(app, "/plans", 3, **{"X-User": "a"}) == [200, 200, 429]
    assert statuses(app, "/plans", 5, **{"X-User": "b", "X-Plan": "pro"}) == [200] * 4 + [429]
    assert statuses(app, "/plans", 9, **{"X-User": "c", "X-Plan": "staff"}) == [200] * 9
    assert web.fields(app.get("/plans", headers={"X-Plan": "staff"})) == {}
    # A function of the request.
    assert statuses(app, "/tenants", 2) == [200, 429]
    assert statuses(app, "/tenants", 2, Host="intern.example") == [200, 200]


def test_a_cost_of_0_only_looks(app: httpx.Client) -> None:
    left = [app.get(f"/weighed?units={units}") for units in (0, 3, 0, 8, 7, 0)]
    assert [response.status_code for response in left] == [200, 200, 200, 429, 200, 200]
    assert [response.headers["RateLimit"].split(";")[1] for response in left] == [
        "r=10",
        "r=7",
        "r=7",
        "r=7",
        *["r=0"] * 2,
    ]
    never = app.get("/weighed?units=11")
    assert (never.status_code, never.json()["detail"]) == (429, "No wait helps.")
    assert "Retry-After" not in never.headers


def test_strict_counts_refusals(app: httpx.Client, server: Server) -> None:
    assert statuses(app, "/login", 4, **{"X-User": "a"}) == [200, 200, 429, 429]
    limiter = SyncLimiter(server.url)
    assert limiter.peek("rl:login:a", "9/minute", cost=0).remaining == 5


def test_two_limits_are_two_calls_and_all_of_is_one(app: httpx.Client, server: Server) -> None:
    assert statuses(app, "/both", 1, **{"X-User": "a"}) == [200]
    refused = app.get("/both", headers={"X-User": "a"})
    assert refused.json()["violated-policies"] == ["other"]
    # The first was charged, and gives back what another limit refused.
    assert refused.headers["RateLimit"].startswith('"one";r=3;')
    assert app.get("/both", headers={"X-User": "b"}).headers["RateLimit"].startswith('"one";r=3;')

    assert statuses(app, "/all", 3, **{"X-User": "a@x", "X-Plan": "staff"}) == [200, 200, 429]
    assert statuses(app, "/all?teapot=1", 1, **{"X-User": "b@x", "X-Plan": "pro"}) == [418]
    refused = app.get("/all", headers={"X-User": "b@x", "X-Plan": "pro"})
    assert refused.json()["violated-policies"] == ["team"]
    # The user's limit got its own back after the teapot, and was not charged by the refusal.
    assert '"user-2/1m";r=2;' in refused.headers["RateLimit"]
    assert "Retry-After" in refused.headers
    assert '"plan-4/1m";r=3;' in refused.headers["RateLimit"], "charged once"


def test_equal_limits_of_a_router_and_its_route_are_one(app: httpx.Client) -> None:
    assert app.get("/router/of/7").headers["RateLimit"].startswith('"router";r=2;')


@pytest.mark.parametrize(
    "path", ["/twice", "/wrong/by", "/wrong/limits", "/weighed?units=13", "/weighed?units=-1", "/stream-key"]
)
def test_a_mistake_is_a_500_and_lets_nothing_pass(app: httpx.Client, server: Server, path: str) -> None:
    server.client().set("rl:wrongtype:everyone", "text")
    server.client().set("rl:wrongtype:everyone:ratelimit", "text")
    assert statuses(app, path, 2) == [500, 500]


def test_clients_by_address(app: httpx.Client, server: Server) -> None:
    # uvicorn believes the local proxy.
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8:0:2::1", "2001:db8:0:2:ffff::2", "2001:db8:1:3::1"):
        app.get("/plain", headers={"X-Forwarded-For": address})
    assert keys(server) == {"rl:plain:192.0.2.1", "rl:plain:2001:db8:0:2::/64", "rl:plain:2001:db8:1:3::/64"}


def test_names_of_clients(app: httpx.Client, server: Server) -> None:
    app.get("/tiered", headers={"X-User": "x" * 200})
    app.get("/tiered", headers={"X-User": ""})
    app.get("/tiered")  # None is the address
    app.get("/secret", headers={"X-User": "key"})
    app.get("/secret")
    long, *rest = sorted(keys(server), key=len, reverse=True)
    assert len(long) == len("rl:tiered:") + 64
    assert set(rest) > {"rl:tiered:", "rl:tiered:127.0.0.1", "rl:secret:127.0.0.1"}
    assert not any("key" in key for key in rest)


def test_openapi_shows_429_where_a_limit_is(app: httpx.Client) -> None:
    paths = app.get("/openapi.json").json()["paths"]
    limited = {path for path, operations in paths.items() if "429" in operations["get"]["responses"]}
    assert set(paths) - limited == {"/free"}
    assert "/router/of/{number}" in limited
    assert "application/problem+json" in paths["/plain"]["get"]["responses"]["429"]["content"]
    # What `by` and `cost` use is documented as well.
    assert [one["name"] for one in paths["/weighed"]["get"]["parameters"]] == ["units"]


def test_a_websocket_is_refused_before_it_is_accepted(app: httpx.Client) -> None:
    url = f"ws://127.0.0.1:{app.base_url.port}/socket"
    for left in (1, 0):
        with connect(url) as socket:
            assert socket.recv() == "hello"
            assert socket.response is not None
            assert socket.response.headers["RateLimit"].startswith(f'"socket";r={left};')
    with pytest.raises(InvalidStatus) as refused:
        connect(url)
    response = refused.value.response
    assert response.status_code == 429
    assert response.headers["Retry-After"]
    assert b"quota-exceeded" in (response.body or b"")


def test_a_server_that_can_only_close_a_websocket_says_403(start: Callable[..., Server]) -> None:
    app: Any = fastapi_app.build(Limiter(start().url))

    async def without_extensions(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    with web.asgi(without_extensions) as client:
        url = f"ws://127.0.0.1:{client.base_url.port}/socket"
        for _ in range(2):
            with connect(url) as socket:
                socket.recv()
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
        assert refused.value.response.status_code == 403


def test_an_answer_of_ones_own(start: Callable[..., Server]) -> None:
    with web.asgi(fastapi_app.with_own_refusal(Limiter(start().url))) as client:
        *_, refused = (client.get("/plain") for _ in range(3))
        assert (refused.status_code, refused.text) == (420, "in 60 s")
        assert refused.headers["RateLimit"].startswith('"plain";r=0;')
        assert refused.headers["Retry-After"] == "60"


def test_without_redis(start: Callable[..., Server]) -> None:
    server = start(fresh=True)
    server.close()
    with web.asgi(fastapi_app.build(Limiter(server.url))) as client:
        response = client.get("/plain")
        assert response.status_code == 200
        assert web.fields(response) == {"ratelimit-policy": '"plain";q=2;w=60'}, "nobody knows what is left"
        assert statuses(client, "/failures?status=404", 3) == [404] * 3
    with web.asgi(fastapi_app.build(Limiter(server.url, fail="closed"))) as client:
        response = client.get("/plain")
        assert (response.status_code, response.json()["status"]) == (503, 503)
        assert web.fields(response) == {"ratelimit-policy": '"plain";q=2;w=60', "retry-after": "1"}
    with web.asgi(fastapi_app.build(Limiter(server.url, fail="local", local_share=0.5))) as client:
        assert client.get("/plain").headers["RateLimit-Policy"] == '"plain";q=1;w=60'
        assert statuses(client, "/plain", 1) == [429]


def test_one_limiter_in_several_event_loops(start: Callable[..., Server]) -> None:
    """As test clients do, one for each request."""
    import asyncio

    app = fastapi_app.build(Limiter(start().url))

    async def get() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return (await client.get("/plain")).status_code

    assert [asyncio.run(get()) for _ in range(3)] == [200, 200, 429]


def test_what_is_wrong_is_told_at_once() -> None:
    for name, limits in {
        "a name": ["1/second"],
        "name": [],
        "none": ["10/fortnight"],
        "two": ["1/second", lambda: None],
    }.items():
        with pytest.raises((ValueError, TypeError)):
            RateLimit(name, *limits)
    with pytest.raises(ValueError, match="cost"):
        RateLimit("name", "1/second", cost=-1)
    with pytest.raises(TypeError, match=r"aio\.Limiter"):
        install(FastAPI(), SyncLimiter("redis://localhost"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"aio\.Limiter"):
        RateLimit("name", "1/second", limiter=SyncLimiter("redis://localhost"))  # type: ignore[arg-type]
    one = RateLimit("one", "1/second")
    for others in [(), (one, one), (one, RateLimit("strict", "1/second", strict=True))]:
        with pytest.raises(ValueError, match="AllOf takes"):
            AllOf(*others)


def test_a_missing_install_is_a_500(start: Callable[..., Server]) -> None:
    app = FastAPI()
    limiter = Limiter(start().url)

    @app.get("/", dependencies=[Depends(RateLimit("plain", "2/minute", limiter=limiter))])
    async def route() -> None: ...

    with web.asgi(app) as client:
        assert client.get("/").status_code == 500
        with pytest.raises(RuntimeError, match="before the first request"):
            install(app, limiter)


def test_a_limiter_of_its_own_and_a_key_to_reset(start: Callable[..., Server]) -> None:
    server = start()
    limiter = Limiter(server.url, prefix="own:")
    app, limit = FastAPI(), RateLimit("login", "1/minute", limiter=limiter)
    install(app)
    router = APIRouter()

    @router.get("/")
    async def route() -> None: ...

    @router.post("/", dependencies=[Depends(client_address)])
    async def forget() -> int:
        return await limiter.reset(limit.key("127.0.0.1"))

    app.include_router(router, dependencies=[Depends(limit)])
    app.post("/forget")(forget)
    with web.asgi(app) as client:
        assert statuses(client, "/", 2) == [200, 429]
        assert keys(server) == {"own:rl:login:127.0.0.1"}
        assert client.post("/forget").json() == 1
        assert statuses(client, "/", 2) == [200, 429]


def test_what_was_not_counted_is_not_given_back(start: Callable[..., Server]) -> None:
    """A request passes while Redis is away, and fails when it has come back."""
    server = start(fresh=True)
    limiter = Limiter(server.url, pause=0)
    app = FastAPI()
    install(app, limiter)

    @app.get("/", dependencies=[Depends(RateLimit("plain", "5/minute", by=everyone, refund_if=418))])
    async def route() -> None:
        server.start()
        SyncLimiter(server.url).hit("rl:plain:everyone", "5/minute")
        raise HTTPException(418)

    server.kill()
    with web.asgi(app) as client:
        assert client.get("/").status_code == 418
    assert SyncLimiter(server.url).peek("rl:plain:everyone", "5/minute", cost=0).remaining == 4


def test_applications_within_applications_and_overrides(start: Callable[..., Server]) -> None:
    limiter = Limiter(start().url)
    app, inner, bare = FastAPI(), FastAPI(), FastAPI()
    limit = RateLimit("inner", "1/minute")
    install(app, limiter)
    install(inner, limiter)
    for one in (inner, bare):
        one.add_api_route("/", lambda: "hello", dependencies=[Depends(limit)])
    app.mount("/inner", inner)
    app.mount("/bare", bare)
    app.add_middleware(RateLimitMiddleware, limiter, "all", "100/hour", by=asgi.everyone)
    with web.asgi(app) as client:
        responses = [client.get("/inner/") for _ in range(2)]
        assert [response.status_code for response in responses] == [200, 429]
        assert responses[0].headers["RateLimit"] == '"inner";r=0;t=60, "all";r=99;t=3600'
        # The application around it has prepared the request, so it is limited as well.
        assert client.get("/bare/").status_code == 429
        inner.dependency_overrides[limit] = lambda: None
        assert client.get("/inner/").status_code == 200


def test_the_core_needs_no_framework() -> None:
    code = "import sys, redis_ratelimit.aio; sys.exit(any(m in sys.modules for m in ('fastapi', 'flask', 'django')))"
    subprocess.run([sys.executable, "-c", code], check=True)
