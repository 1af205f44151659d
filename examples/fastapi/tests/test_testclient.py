"""In process, with FastAPI's TestClient, as people test their own applications: a real Redis, no uvicorn."""

import gc
import threading
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from rate_monitor import AllOf, Limiter, RateLimit, everyone


def application(server, **options):
    app = FastAPI(**options)
    Limiter(server.url, timeout=10).install(app)
    return app


def test_a_test_client_without_with(server):
    """It has one event loop per request."""
    app = application(server)
    app.get("/", dependencies=[Depends(RateLimit("name", "30/minute"))])(lambda: {})
    client = TestClient(app)
    codes = [client.get("/").status_code for _ in range(31)]
    assert codes == [200] * 30 + [429]
    gc.collect()
    assert server.client.info("clients")["connected_clients"] <= 3, "connections of loops that have ended are closed"


def test_with_with_and_one_after_the_other(server):
    limiter = Limiter(server.url, timeout=10)

    @asynccontextmanager
    async def lifespan(_):
        async with limiter:
            yield

    app = FastAPI(lifespan=lifespan)
    limiter.install(app)
    app.get("/", dependencies=[Depends(RateLimit("name", "3/minute"))])(lambda: {})
    for expected in ([200, 200], [200, 429]):
        with TestClient(app) as client:
            assert [client.get("/").status_code for _ in expected] == expected
    assert TestClient(app).get("/").status_code == 429


def test_two_loops_at_once(server):
    app = application(server)
    app.get("/", dependencies=[Depends(RateLimit("name", "40/minute"))])(lambda: {})
    codes = []

    def run():
        with TestClient(app) as client:
            codes.extend(client.get("/").status_code for _ in range(20))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (codes.count(200), codes.count(429)) == (40, 40)


def test_a_websocket(server):
    app = application(server)

    @app.websocket("/", dependencies=[Depends(RateLimit("name", "1/minute"))])
    async def route(socket: WebSocket):
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    client = TestClient(app)
    with client.websocket_connect("/") as socket:
        assert socket.receive_text() == "hello"
        assert dict(socket.extra_headers)[b"ratelimit-policy"] == b'"name";q=1;w=60'
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/"):
        pass
    assert refused.value.status_code == 429


def on_router_and_route(server, one, other):
    """An application that has one on a router and another on its route, with a WebSocket beside it."""
    app, router = application(server), APIRouter(dependencies=[Depends(one)])
    router.get("/", dependencies=[Depends(other)])(lambda: {})

    @router.websocket("/socket", dependencies=[Depends(other)])
    async def socket(socket: WebSocket):
        await socket.accept()
        await socket.close()

    app.include_router(router, prefix="/api")
    return app


def limit(**options):
    return RateLimit("name", "5/minute", **options)


@pytest.mark.parametrize("make", [limit, lambda: AllOf(limit(by=everyone), RateLimit("other", "9/minute"), cost=1)])
def test_equal_limits_are_one(server, make):
    with TestClient(on_router_and_route(server, make(), make())) as client:
        headers = client.get("/api/").headers
        assert headers["RateLimit"].count('"name";r=4;') == headers["RateLimit-Policy"].count('"name"') == 1
        with client.websocket_connect("/api/socket") as socket:
            assert dict(socket.extra_headers)[b"ratelimit"].count(b'"name";r=3;') == 1


DIFFERENT = {
    "windows": (limit(), RateLimit("name", "2/10s")),
    "by": (limit(), limit(by=everyone)),
    "cost": (limit(), limit(cost=2)),
    "strict": (limit(), limit(strict=True)),
    "fail": (limit(), limit(fail="closed")),
    "in AllOf": (limit(), AllOf(limit(), RateLimit("other", "9/minute"))),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_limits_of_one_name_are_an_error_when_the_application_starts(server, name):
    app = on_router_and_route(server, *DIFFERENT[name])
    match = "/api/ has two different limits named 'name'"
    with pytest.raises(ValueError, match=match), TestClient(app):
        pass
    # Without startup events, as here, the first request raises it.
    server.client.config_resetstat()
    with pytest.raises(ValueError, match=match):
        TestClient(app).get("/api/")
    assert server.calls() == {}


def test_different_limits_of_one_name_anywhere(server):
    """In the application's dependencies, in dependencies of dependencies, and below a mount."""

    async def deep(_=Depends(RateLimit("name", "2/10s"))):  # noqa: B008
        pass

    app = application(server, dependencies=[Depends(limit())])
    app.get("/", dependencies=[Depends(deep)])(lambda: {})
    with pytest.raises(ValueError, match="/ has two"), TestClient(app):
        pass
    outer, inner = application(server), FastAPI(dependencies=[Depends(limit())])
    inner.get("/x", dependencies=[Depends(deep)])(lambda: {})
    outer.mount("/inner", inner)
    with pytest.raises(ValueError, match="/x has two"), TestClient(outer):
        pass


def test_limits_of_one_name_on_different_routes_are_none(server):
    app = application(server)
    app.get("/a", dependencies=[Depends(limit())])(lambda: {})
    app.get("/b", dependencies=[Depends(RateLimit("name", "2/10s"))])(lambda: {})
    with TestClient(app) as client:
        assert [client.get(path).status_code for path in ("/a", "/b", "/b")] == [200, 200, 429]
