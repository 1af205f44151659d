from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import servers
from servers import Server


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers: one of each kind for all tests, or a new one with `fresh=True`."""
    running: dict[object, Server] = {}

    def get(program: str = "redis-server", *, module: bool = False, clock: bool = False, fresh: bool = False) -> Server:
        kind = object() if fresh else (program, module, clock)
        if kind not in running:
            if module and not servers.MODULE.exists():
                pytest.skip("the module is not built")
            if clock and servers.FAKETIME is None:
                pytest.skip("libfaketime is missing")
            running[kind] = Server(program, module=module, clock=clock)
        server = running[kind]
        if not fresh:
            if clock:
                server.set_clock(servers.START)
            server.client().flushall()
        return server

    yield get
    for server in running.values():
        server.close()


@pytest.fixture(params=["module", "script"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(start: Callable[..., Server], engine: str) -> Server:
    return start(module=engine == "module")
