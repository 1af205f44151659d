"""A cluster of three, and a primary found through Sentinel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from redis.sentinel import Sentinel
from redis_ratelimit import Limiter, aio
from servers import Server, free_ports

RANGES = ((0, 5460), (5461, 10922), (10923, 16383))


def cluster(module: bool) -> tuple[list[Server], list[int]]:
    ports = free_ports(6)
    nodes = []
    for port, bus in zip(ports[:3], ports[3:], strict=True):
        options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
        nodes.append(Server("redis-server", *options, module=module, port=port))
    for number, (node, (first, last)) in enumerate(zip(nodes, RANGES, strict=True)):
        client = node.client()
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        if number:
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], ports[3])
    deadline = time.monotonic() + 20
    while not all(
        "cluster_state:ok" in (text := str(node.client().execute_command("CLUSTER INFO")).replace("': '", ":"))
        and "cluster_known_nodes:3" in text
        for node in nodes
    ):
        assert time.monotonic() < deadline, "the cluster does not form"
        time.sleep(0.02)
    return nodes, ports[:3]


@pytest.fixture(scope="module", params=["module", "script"])
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    servers, ports = cluster(request.param == "module")
    yield request.param, ports[0]
    for server in servers:
        server.close()


def test_cluster(nodes: tuple[str, int]) -> None:
    engine, port = nodes
    limiter = Limiter(redis.RedisCluster(host="127.0.0.1", port=port))
    for nth in range(30):
        assert [limiter.hit(f"sync:{nth}", "2/minute").allowed for _ in range(3)] == [True, True, False]
    assert limiter.engine == engine
    assert limiter.peek("sync:0", "5/minute").remaining == 2
    assert limiter.reset("sync:0") == 1
    if engine == "script":
        assert limiter.refund("sync:1") == 1
        assert limiter.hit_many([("a:{1}", "1/s"), ("b:{1}", "2/s")])[1].remaining == 1
        with pytest.raises((redis.RedisError, redis.exceptions.RedisClusterException)):
            limiter.hit_many([("a", "1/s"), ("b", "2/s")])


def test_cluster_asyncio(nodes: tuple[str, int]) -> None:
    engine, port = nodes

    async def scenario() -> None:
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
        limiter = aio.Limiter(client)
        for nth in range(30):
            allowed = [(await limiter.hit(f"async:{nth}", "2/minute")).allowed for _ in range(3)]
            assert allowed == [True, True, False]
        assert limiter.engine == engine
        await client.aclose()

    asyncio.run(scenario())


def test_sentinel() -> None:
    primary_port, sentinel_port = free_ports(2)
    primary = Server("redis-server", port=primary_port)
    watcher = Server("redis-server", port=sentinel_port)
    try:
        watcher.kill()
        file = watcher.folder / "sentinel.conf"
        file.write_text(f"sentinel monitor main 127.0.0.1 {primary_port} 1\n")
        watcher.command = ["redis-server", str(file), "--sentinel", *watcher.command[1:9]]
        watcher.command = [word for word in watcher.command if word not in ("--save", "")]
        watcher.start()
        client = Sentinel([("127.0.0.1", sentinel_port)]).master_for("main")
        limiter = Limiter(client)
        assert [limiter.hit("k", "2/minute").allowed for _ in range(3)] == [True, True, False]
        assert limiter.hit("k", "3/minute").source == "redis"
    finally:
        primary.close()
        watcher.close()
