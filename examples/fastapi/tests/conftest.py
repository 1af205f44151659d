"""Helpers of the tests: Redis with the module on a unix socket, and the application as processes that serve HTTP."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MODULE = ROOT / "target/release/libratelimit.so"
PATIENCE = 20.0  # seconds after which something counts as hung


def wait_for(what: str, so: Callable[[], Any]) -> Any:
    """The first true result. An error counts as not yet true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if result := so():
                return result
        except (OSError, httpx.HTTPError, redis.RedisError):
            pass
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class Process:
    """A program whose output goes to a file. It is killed at the end of the test."""

    def __init__(self, log: Path, *command: str, **env: str):
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=ROOT, env=os.environ | env, start_new_session=True
            )

    def output(self) -> str:
        return self.log.read_text()

    def find(self, pattern: str) -> re.Match[str]:
        """Waits until the program's output matches."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output())
            assert match or self.process.poll() is None, f"it has ended:\n{self.output()}"
            return match

        return wait_for(pattern, found)

    def send(self, number: signal.Signals) -> None:
        """Signals the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait(PATIENCE)


class Server(Process):
    """Redis with the module."""

    def __init__(self, directory: Path, *options: str):
        self.directory, self.options = directory, options
        self.url = f"unix://{directory}/redis.sock"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self, module: bool = True) -> None:
        server = os.environ.get("RATELIMIT_SERVER", "redis-server")
        options = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir", str(self.directory)]
        options += [*self.options, *(["--loadmodule", str(MODULE)] if module else [])]
        super().__init__(self.directory / "redis.log", server, *options)
        wait_for("redis", self.client.ping)

    def hits(self, key: str, window: str, *ages: int) -> None:
        """Writes hits of this many seconds ago, as the module would have."""
        second, microsecond = self.client.time()
        for tally, age in enumerate(ages, 1):
            self.client.xadd(key, {window: 1}, id=f"{(second - age) * 1000 + microsecond // 1000}-{tally}")

    def calls(self) -> dict[str, int]:
        """How often each command was called, except those that open a connection, ask for this, or are called by the
        module (a log begins with RESTORE)."""
        stats = self.client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
        others = ("info", "restore", "config|resetstat", "hello", "client|setinfo")
        return {name: count for name, count in calls.items() if name not in others}


class App(Process):
    """An application that serves HTTP on its own port."""

    def __init__(self, log: Path, *command: str, **env: str):
        super().__init__(log, sys.executable, "-B", *command, **env)
        self.url = self.find(r"http://127\.0\.0\.1:\d+")[0]
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        wait_for("the application", lambda: self.client.get("/openapi.json"))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)


def at_once(count: int, path: str, *apps: App, **options: Any) -> list[int]:
    """The status codes of `count` requests at the same time, spread over the applications."""

    async def run() -> list[int]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(limits=limits, timeout=60, **options) as client:
            requests = [client.get(apps[i % len(apps)].url + path) for i in range(count)]
            return [response.status_code for response in await asyncio.gather(*requests)]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    """Each test starts with an empty Redis."""
    if "server" in request.fixturenames:
        client = request.getfixturevalue("server").client
        client.flushall()
        client.execute_command("RATELIMIT.RESETSTAT")


@pytest.fixture(scope="module")
def start(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts `rate-monitor`, or the application in a file: `start("features.py", PAUSE="1")`.

    The time limit is 10 seconds, because one second is short on a busy machine. Tests of outages set their own.
    """
    apps: list[App] = []

    def start(file: str | Path = "", **env: str) -> App:
        path = HERE / file
        uvicorn = ["uvicorn", "--port", "0", "--app-dir", str(path.parent), f"{path.stem}:app"]
        env = {"REDIS_URL": server.url, "HTTP_PORT": "0", "RATE_LIMIT_TIMEOUT": "10"} | env
        log = tmp_path_factory.mktemp("app") / "log"
        apps.append(App(log, "-m", *(uvicorn if file else ["rate_monitor"]), **env))
        return apps[-1]

    yield start
    for app in apps:
        app.client.close()
        app.kill()


@pytest.fixture(scope="module")
def app(start: Callable[..., App]) -> App:
    return start()
