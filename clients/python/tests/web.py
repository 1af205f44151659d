"""Applications over HTTP, in a thread of the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import uvicorn


@contextmanager
def asgi(app: Any) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "uvicorn does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with _client(port) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def statuses(app: httpx.Client, path: str, count: int, **headers: str) -> list[int]:
    return [app.get(path, headers=headers).status_code for _ in range(count)]


def _client(port: int) -> httpx.Client:
    # After an error uvicorn closes the connection, so that it cannot be used again.
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(max_keepalive_connections=0))


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def wsgi(app: Callable[..., Any]) -> Iterator[httpx.Client]:
    server = make_server("127.0.0.1", 0, app, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with _client(server.server_port) as client:
            yield client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fields(response: httpx.Response) -> dict[str, str]:
    """The headers of limits."""
    return {name: value for name, value in response.headers.items() if name.startswith(("ratelimit", "retry-after"))}
