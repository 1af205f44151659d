"""Dependencies that return wrong values: a bug never lets requests pass, and charges nobody."""

import json
from base64 import b64decode
from hashlib import sha256

import httpx
import pytest
from conftest import wait_for
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rate_monitor import AllOf, Limiter, RateLimit

NO_COST = ["1.5", "2.0", "-5", "None", "True", "False", str(2**53), "'3'", "bytes", "nan", "list", "object"]
NAMES = {  # if they are not the path's, and `weight`
    "sync": ("sync", "sync_weight"),
    "generated": ("generated", "generated_weight"),
    "object": ("object", "Weighing"),
    "both": ("one", "weight"),
}


@pytest.fixture(scope="module")
def app(start):
    return start("faults.py")


def get(app, path):
    # On its own connection, because the server hangs up after an unhandled exception.
    return httpx.get(app.url + path)


def who(headers):
    return b64decode(headers["RateLimit"].rpartition("pk=:")[2].rstrip(":")).decode()


@pytest.mark.parametrize("path", ["cost", "sync", "generated", "object", "closed", "strict", "tiers", "both"])
def test_what_is_no_cost_is_an_error_that_names_the_dependency(app, server, path):
    server.client.config_resetstat()
    for cost in NO_COST:
        response = get(app, f"/{path}?cost={cost}")
        assert (response.status_code, "RateLimit" in response.headers) == (500, False), cost
    name, dependency = NAMES.get(path, (path, "weight"))
    error = f"ValueError: {name}: cost={dependency} returned "
    wait_for(error, lambda: app.output().count(error) == len(NO_COST))
    assert server.calls() == {}, "Redis was not asked"
    assert "no answer from Redis" not in app.output(), "and was not taken to be away"
    assert get(app, f"/{path}?cost=3").status_code == 200


def test_a_cost_of_0_charges_nothing_and_tells_what_is_left(app, server):
    assert get(app, "/cost?cost=0").headers["RateLimit"].startswith('"cost";r=5;t=0;')
    assert server.client.keys() == []
    assert get(app, "/cost?cost=3").headers["RateLimit"].startswith('"cost";r=2;')
    for _ in range(3):
        response = get(app, "/cost?cost=0")
        assert response.status_code == 200
        assert response.headers["RateLimit-Policy"] == '"cost";q=5;w=60'
        assert response.headers["RateLimit"].startswith('"cost";r=2;t=')
    # Also if nothing is left: what weighs nothing exceeds no limit.
    assert get(app, "/cost?cost=3").status_code == 429
    assert [get(app, "/cost?cost=1").status_code for _ in range(3)] == [200, 200, 429]
    empty = get(app, "/cost?cost=0")
    assert (empty.status_code, "Retry-After" in empty.headers) == (200, False)
    assert empty.headers["RateLimit"].startswith('"cost";r=0;t=')
    assert server.client.xlen("rl:cost:127.0.0.1") == 3


def test_a_cost_of_0_elsewhere(app, server):
    assert get(app, "/free").headers["RateLimit"].startswith('"free";r=5;t=0;')
    assert get(app, "/strict?cost=0").status_code == 200
    assert get(app, "/tiers?cost=0").headers["RateLimit"].startswith('"tiers-1m";r=5;t=0;')
    assert server.client.keys() == []
    get(app, "/both?cost=3")
    states = get(app, "/both?cost=0").headers["RateLimit"]
    assert states.startswith('"one";r=2;t=') and ', "other";r=1;t=' in states
    assert {server.client.xlen(key) for key in server.client.keys()} == {1}


def test_a_cost_of_an_enum_is_its_number(app):
    assert get(app, "/cost?cost=enum").headers["RateLimit"].startswith('"cost";r=2;')


@pytest.mark.parametrize("cost", [1.5, 2.0, -5, None, True, "3", 2**53])
def test_a_cost_that_is_wrong_in_the_program_is_told_at_once(cost):
    with pytest.raises(ValueError, match="name: cost is .*, not an integer from 0 or a dependency"):
        RateLimit("name", "1/minute", cost=cost)
    with pytest.raises(ValueError, match="AllOf: cost is .*, not an integer from 0 or a dependency"):
        AllOf(RateLimit("name", "1/minute"), cost=cost)


def test_how_to_fail_is_open_or_closed_and_nothing_else():
    """`fail="close"` would let requests pass."""
    for fail in ("close", "Closed", "", True, 0):
        with pytest.raises(ValueError, match="fail is"):
            RateLimit("name", "1/minute", fail=fail)
        with pytest.raises(ValueError, match="fail is"):
            AllOf(RateLimit("name", "1/minute"), fail=fail)
        with pytest.raises(ValueError, match="fail is"):
            Limiter("redis://127.0.0.1", fail=fail)
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout above 0"):
            Limiter("redis://127.0.0.1", timeout=timeout)


@pytest.mark.parametrize("path", ["by", "by-generated", "by-both"])
def test_by_returns_a_string_an_int_or_none(app, server, path):
    log = "b" if path == "by-both" else path
    for value, name in {"42": "42", "0": "0", "é": "é", "": "", "None": "127.0.0.1", "nul": "a\0b\r\n"}.items():
        response = httpx.get(f"{app.url}/{path}", params={"who": value})
        assert (response.status_code, who(response.headers)) == (200, name)
        assert server.client.xlen(f"rl:{log}:{name}") == 1
    server.client.config_resetstat()
    for value in ("1.5", "True", "bytes", "list", "object", "uuid"):
        response = get(app, f"/{path}?who={value}")
        assert (response.status_code, "RateLimit" in response.headers) == (500, False), value
    culprit = "generated_person" if path == "by-generated" else "person"
    app.find(f"TypeError: by={culprit} returned a UUID, not a string, an int or None")
    assert server.calls() == {}, "nobody was charged"


def test_hashed_takes_the_same(app, server):
    codes = {value: get(app, f"/by-hashed?who={value}").status_code for value in ("42", "é", "None", "long", "\\ud800")}
    assert set(codes.values()) == {200}, codes
    names = {key.removeprefix("rl:by-hashed:") for key in server.client.keys()}
    assert len(names) == 5 and "127.0.0.1" in names, "who has no name is not hashed"
    assert {len(name) for name in names - {"127.0.0.1"}} == {32}
    assert get(app, "/by-hashed?who=1.5").status_code == 500
    assert len(server.client.keys()) == 5


def test_without_its_optional_key_a_request_is_charged_to_the_address(app, server):
    codes = [get(app, "/optional").status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert server.client.keys() == ["rl:optional:127.0.0.1"]
    assert app.get("/optional", **{"X-API-Key": "k"}).status_code == 200
    assert app.get("/optional", **{"X-API-Key": ""}).status_code == 429, "an empty one is none"


def test_half_a_character_is_a_name_too(app, server):
    body = json.dumps({"who": "\ud800"})
    response = httpx.post(f"{app.url}/by-body", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, who(response.headers)) == (200, "\\ud800")
    assert server.client.keys() == [r"rl:by-body:\ud800"]


def test_a_long_name_is_its_hash_in_the_key_and_in_the_header(app, server):
    for value, length in {"long": 10_000, "longer": 10_001}.items():
        response = get(app, f"/by?who={value}")
        name = sha256(b"x" * length).hexdigest()
        assert (response.status_code, who(response.headers)) == (200, name)
        assert server.client.xlen(f"rl:by:{name}") == 1


@pytest.mark.parametrize("path", ["/cost?cost=raises", "/by?who=raises", "/by-both?who=raises", "/both?cost=raises"])
def test_where_a_dependency_raises_nothing_is_counted(app, server, path):
    response = get(app, path)
    assert (response.status_code, "RateLimit" in response.headers) == (418, False)
    assert server.client.keys() == []


def test_a_websocket_is_charged_when_it_opens(app, server):
    url = app.url.replace("http", "ws")
    for left in (1, 0):
        with connect(f"{url}/socket") as socket:
            assert socket.response.headers["RateLimit"].startswith(f'"socket";r={left};')
            assert json.loads(socket.recv())[:3] == [1, 2, left]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/socket")
    response = refused.value.response
    assert (response.status_code, response.headers["RateLimit-Policy"]) == (429, '"socket";q=2;w=60')
    assert response.headers["RateLimit"].startswith('"socket";r=0;')
    assert response.headers["Retry-After"]
    assert json.loads(response.body)["violated-policies"] == ["socket"]
    with connect(f"{url}/socket", additional_headers={"X-API-Key": "k"}) as socket:
        assert json.loads(socket.recv())[2] == 1


def test_a_websocket_of_several_limits(app):
    url = app.url.replace("http", "ws") + "/all-socket"
    with connect(url, additional_headers={"X-Cost": "2"}) as socket:
        assert socket.response.headers["RateLimit-Policy"] == '"c";q=3;w=60, "d";q=4;w=60'
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"X-Cost": "2"})
    assert json.loads(refused.value.response.body)["violated-policies"] == ["c"]


TWICE = """
import os
from fastapi import Depends, FastAPI
from rate_monitor import Limiter, RateLimit

app = FastAPI(dependencies=[Depends(RateLimit("name", "5/minute"))])
Limiter(os.environ["REDIS_URL"]).install(app)
app.get("/twice", dependencies=[Depends(RateLimit("name", "2/10s"))])(lambda: {})
"""


def test_an_application_with_two_limits_of_one_name_on_a_route_does_not_start(start, tmp_path):
    (tmp_path / "twice.py").write_text(TWICE)
    with pytest.raises(AssertionError, match="(?s)it has ended:.*/twice has two different limits named 'name'"):
        start(tmp_path / "twice.py")
