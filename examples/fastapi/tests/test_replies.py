"""Error replies: those that mean Redis cannot serve follow `fail`, others are raised. Also in a cluster."""

import asyncio
import socket
import threading
from contextlib import ExitStack

import httpx
import pytest
import redis
from conftest import PATIENCE, Server, wait_for

from rate_monitor import Limiter
from rate_monitor.limiter import Unavailable

CODES = {"/open": 200, "/closed": 503}


@pytest.fixture(scope="module")
def app(start):
    return start("features.py")


def codes(app):
    """On their own connections, because the server hangs up after an unhandled exception."""
    return {path: httpx.get(app.url + path, timeout=PATIENCE).status_code for path in CODES}


def test_out_of_memory(app, server):
    server.client.config_set("maxmemory", 1)
    assert codes(app) == CODES
    server.client.config_set("maxmemory", 0)
    assert codes(app) == {"/open": 200, "/closed": 200}


def test_too_few_replicas(app, server):
    server.client.config_set("min-replicas-to-write", 1)
    assert codes(app) == CODES
    server.client.config_set("min-replicas-to-write", 0)
    assert codes(app) == {"/open": 200, "/closed": 200}


def test_busy(app, server):
    server.client.config_set("busy-reply-threshold", 1)
    script = threading.Thread(target=lambda: server.client.eval("while true do end", 0), daemon=True)
    other = redis.Redis.from_url(server.url)

    def busy():
        try:
            other.execute_command("RATELIMIT.PEEK", "k", 1, 1)
        except redis.ResponseError as error:
            return "BUSY" in str(error)

    threading.excepthook, hook = lambda _: None, threading.excepthook
    script.start()
    try:
        wait_for("a script that does not end", busy)
        assert codes(app) == CODES
    finally:
        other.script_kill()
        script.join()
        threading.excepthook = hook
    assert "BUSY" in app.output()
    assert codes(app) == {"/open": 200, "/closed": 200}


def test_loading(start, tmp_path):
    server = Server(tmp_path)
    app = start("features.py", REDIS_URL=server.url)
    try:
        server.client.config_set("rdbcompression", "no")
        server.client.mset({str(i): "x" * 200 for i in range(5000)})
        server.client.save()
        server.kill()
        # About a millisecond per key, and it looks for commands every few keys.
        server.options = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
        restart = threading.Thread(target=server.start)
        restart.start()
        wait_for("a server that loads", lambda: loading(server))
        assert codes(app) == CODES
        assert "is loading the dataset in memory" in app.output()
        assert loading(server), "still"
        restart.join()
    finally:
        server.kill()


def loading(server):
    try:
        server.client.ping()
    except redis.BusyLoadingError:
        return True


def test_a_replica_and_one_without_its_master(app, server):
    server.client.replicaof("127.0.0.1", "1")
    try:
        assert codes(app) == CODES
        assert "read only replica" in app.output()
        server.client.config_set("replica-serve-stale-data", "no")
        assert codes(app) == CODES
    finally:
        server.client.replicaof("NO", "ONE")
        server.client.config_set("replica-serve-stale-data", "yes")
    assert codes(app) == {"/open": 200, "/closed": 200}


def test_no_permission(start, server):
    server.client.acl_setuser("nobody", enabled=True, passwords="+p", keys="*", commands=["+ping"], reset=True)
    app = start("features.py", REDIS_URL=server.url.replace("unix://", "unix://nobody@") + "?password=p")
    assert codes(app) == CODES


WRONG = {
    "password": ("unix://somebody@", "?password=q", "AuthenticationError: invalid username-password pair"),
    "no password": ("unix://", "", "AuthenticationError: HELLO must be called with the client already authenticated"),
    "database": ("unix://somebody@", "?password=p&db=99", "ResponseError: DB index is out of range"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_url_that_the_server_does_not_accept_is_a_fault_of_the_settings(start, server, what):
    server.client.acl_setuser("somebody", enabled=True, passwords="+p", keys="*", commands=["+@all"], reset=True)
    scheme, query, error = WRONG[what]
    admin = redis.Redis.from_url(server.url.replace("unix://", "unix://somebody@") + "?password=p")
    app = start("features.py", REDIS_URL=server.url.replace("unix://", scheme) + query)
    admin.config_set("requirepass", "x")
    try:
        for _ in range(5):
            assert codes(app) == {"/open": 500, "/closed": 500}
    finally:
        admin.config_set("requirepass", "")
    app.find(error)


def test_a_key_of_somebody_else(app, server):
    for write in (lambda key: server.client.set(key, "x"), lambda key: server.client.xadd(key, {"a": "b"})):
        for path in CODES:
            write(f"rl:{path[1:]}:127.0.0.1")
        assert codes(app) == {"/open": 500, "/closed": 500}
        server.client.flushall()
    app.find("ResponseError: WRONGTYPE")


def test_what_the_client_cannot_send(server):
    async def run():
        async with Limiter(server.url) as limiter:
            for argument in (None, True, [1], 1.5j):
                with pytest.raises(redis.DataError):
                    await limiter.call("RATELIMIT.HIT", "k", argument, "1m")
            with pytest.raises(redis.ResponseError, match="limit is not an integer"):
                await limiter.call("RATELIMIT.HIT", "k", "x", "1m")

    asyncio.run(run())


def test_after_an_outage_a_fault_of_the_program_does_not_open_the_gate(server):
    """Also while the limiter still finds out whether Redis is back."""

    async def run():
        async with Limiter(server.url, pause=0.1) as limiter:
            server.kill()
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await limiter.call("RATELIMIT.HIT", "k", 1, "1m")
            server.start()
            server.client.set("k", "x")
            await asyncio.sleep(0.1)
            for _ in range(20):
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    await limiter.call("RATELIMIT.HIT", "k", 1, "1m")

    asyncio.run(run())


@pytest.fixture
def cluster(tmp_path):
    nodes = []

    def cluster(count):
        """`count` nodes that share the slots, and the URL of the first."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * count)]
            ports = [str(one.getsockname()[1]) for one in sockets]
        for i in range(count):
            (tmp_path / str(i)).mkdir()
            port, bus = ports[2 * i : 2 * i + 2]
            options = ["--cluster-enabled", "yes", "--port", port, "--cluster-port", bus]
            nodes.append(Server(tmp_path / str(i), *options))
            first, last = 16384 * i // count, 16384 * (i + 1) // count - 1
            nodes[i].client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            nodes[i].client.execute_command("CLUSTER MEET", "127.0.0.1", *ports[:2])
        for node in nodes:
            ok = lambda node=node: node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"  # noqa: E731
            wait_for("the cluster", ok)
        return nodes, f"redis://127.0.0.1:{ports[0]}"

    yield cluster
    for node in nodes:
        node.kill()


def test_a_node_of_a_cluster_is_noticed(start, cluster):
    nodes, url = cluster(3)
    app = start("features.py", REDIS_URL=url)
    answers = [httpx.get(f"{app.url}/tiered", headers={"X-User": str(i)}) for i in range(30)]
    limited = [answer.status_code == 200 and "RateLimit" in answer.headers for answer in answers]
    assert 0 < limited.count(True) < 30
    assert [answer.status_code for answer in answers] == [200 if one else 500 for one in limited], "nobody is unlimited"
    app.find("RuntimeError: the limiter's URL is that of one node of a Redis Cluster")
    assert "no answer from Redis" not in app.output()
    # A slot on its way to another node.
    user = limited.index(True)
    node = nodes[0].client
    slot = node.execute_command("CLUSTER KEYSLOT", f"rl:tiered:{user}")
    node.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", nodes[1].client.execute_command("CLUSTER MYID"))
    node.delete(f"rl:tiered:{user}")
    assert httpx.get(f"{app.url}/tiered", headers={"X-User": str(user)}).status_code == 500


def test_a_cluster_of_one_node(start, cluster):
    (node,), url = cluster(1)
    app = start("features.py", REDIS_URL=url)
    for i in range(10):
        assert "RateLimit" in app.get("/tiered", **{"X-User": str(i)}).headers
    # The keys of AllOf are in different slots.
    assert httpx.get(f"{app.url}/all", headers={"X-User": "a@x"}).status_code == 500
    app.find("CrossSlotError")
    node.client.execute_command("CLUSTER DELSLOTSRANGE", 0, 16383)
    assert codes(app) == CODES
    assert "CLUSTERDOWN" in app.output() or "Hash slot not served" in app.output()
