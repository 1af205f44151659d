"""Lets the tests of `limits` (its source package) run against the storages of this package: pytest -p limits_plugin.

Their utilities list the storages; the lists are replaced by ours, on servers that this plugin starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis_ratelimit.limits  # noqa: F401
from pytest_lazy_fixtures import lf

sys.path.insert(0, str(Path.cwd()))
import tests.utils as utils  # noqa: E402
from servers import Server  # noqa: E402

server = Server(module=True)
# Their tests open a hundred connections at once.
PATIENT = {"socket_timeout": 10, "socket_connect_timeout": 10}


@pytest.fixture
def redis_basic() -> Iterator[Any]:
    with server.client() as client:
        client.flushall()
        yield client


def _storages(scheme: str) -> dict[str, Any]:
    return {
        name: pytest.param(f"{scheme}://{server.socket}", {"engine": engine, **PATIENT}, lf("redis_basic"), id=engine)
        for name, engine in (("redis", "module"), ("redis-script", "script"))
    }


utils.ALL_STORAGES = _storages("redis+ratelimit+unix")
utils.ALL_STORAGES_ASYNC = _storages("async+redis+ratelimit+unix")
for names, storages in (
    (("all", "moving_window", "sliding_window_counter"), utils.ALL_STORAGES),
    (("async_all", "async_moving_window", "async_sliding_window_counter"), utils.ALL_STORAGES_ASYNC),
):
    for name in names:
        setattr(utils, f"{name}_storage", pytest.mark.parametrize("uri, args, fixture", storages.values()))


def pytest_unconfigure() -> None:
    server.close()
