"""`make example` without the build: it starts both, stops both, and leaves other programs on its ports alone."""

import signal
import socket

import httpx
import pytest
from conftest import PATIENCE, Process, wait_for


@pytest.fixture
def run(tmp_path):
    processes = []

    def run(port: int, http_port: int) -> Process:
        env = {"PORT": str(port), "HTTP_PORT": str(http_port)}
        processes.append(Process(tmp_path / str(len(processes)), "scripts/fastapi.sh", "run", **env))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()


@pytest.fixture
def ports():
    """Two free ports."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1], other.getsockname()[1]]
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def test_it_starts_both_and_stops_both(run, ports):
    process = run(*ports)
    url = process.find(r"(http://127\.0\.0\.1:\d+)/monitor")[1]
    assert url.endswith(f":{ports[1]}")
    response = wait_for("the application", lambda: httpx.get(f"{url}/protected"))
    assert response.headers["RateLimit"].startswith('"protected";r=9;')
    assert wait_for("the monitor", lambda: httpx.get(f"{url}/monitor/data").json()["admitted"]["all"]) == 1
    process.send(signal.SIGINT)
    assert process.process.wait(PATIENCE) == 0
    assert all(map(is_free, ports))


def test_a_port_that_is_taken(run, ports):
    with socket.create_server(("127.0.0.1", ports[1])):
        process = run(*ports)
        assert process.process.wait(PATIENCE) == 1
        assert f"port {ports[1]} of 127.0.0.1 cannot be had" in process.output()
        assert f"Try: HTTP_PORT={ports[1] + 1}" in process.output()
    assert is_free(ports[0]), "Redis was stopped again"


def test_a_port_of_redis_that_is_taken(run, ports):
    with socket.create_server(("127.0.0.1", ports[0])):
        process = run(*ports)
        assert process.process.wait(PATIENCE) == 1
        assert f"port {ports[0]} is taken" in process.output()
