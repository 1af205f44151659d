"""The recipe's routes, with its numbers, as a client sees them."""

import json
import re

from conftest import Server, at_once

KEY = {"X-API-Key": "demo"}
PRO = {"X-API-Key": "demo-pro"}
MINUTE = "(?:60|5[0-9])"  # a test may take a while


def test_the_root_is_free(app):
    for _ in range(20):
        response = app.get("/")
        assert response.status_code == 200
        assert not {"RateLimit", "RateLimit-Policy", "Retry-After"} & {name.title() for name in response.headers}


def test_protected_allows_10_in_60_seconds(app):
    for left in reversed(range(10)):
        response = app.get("/protected")
        assert response.status_code == 200
        assert response.headers["RateLimit-Policy"] == '"protected";q=10;w=60'
        assert re.fullmatch(rf'"protected";r={left};t={MINUTE}', response.headers["RateLimit"])
        assert "Retry-After" not in response.headers
    response = app.get("/protected")
    assert response.status_code == 429
    assert response.headers["RateLimit-Policy"] == '"protected";q=10;w=60'
    assert response.headers["RateLimit"].startswith('"protected";r=0;t=')
    assert re.fullmatch(MINUTE, response.headers["Retry-After"])
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": f"Try again in {response.headers['Retry-After']} s.",
        "violated-policies": ["protected"],
    }


def test_strict_allows_5_in_10_seconds_whatever_was_done_elsewhere(app):
    app.get("/protected")
    assert [app.get("/strict").status_code for _ in range(6)] == [200] * 5 + [429]
    assert app.get("/strict").headers["RateLimit-Policy"] == '"strict";q=5;w=10'
    assert app.get("/protected").status_code == 200


def test_history_needs_a_key_that_was_issued(app, server):
    for response in (app.get("/stocks/ACME/history"), app.get("/stocks/ACME/history", **{"X-API-Key": "guessed"})):
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "APIKey"
        assert "RateLimit" not in response.headers
    assert server.client.keys() == []
    first = app.get("/stocks/ACME/history", **KEY)
    assert len(first.json()["prices"]) == 30
    assert first.json() == app.get("/stocks/ACME/history", **KEY).json()


def test_each_plan_has_its_limit(app):
    assert [app.get("/stocks/X/history", **KEY).status_code for _ in range(101)] == [200] * 100 + [429]
    pro = app.get("/stocks/ACME/history", **PRO)
    assert pro.headers["RateLimit-Policy"] == '"history";q=500;w=60'
    assert pro.headers["RateLimit"].startswith('"history";r=499;')


def test_a_key_may_have_any_letters(start):
    app = start(API_KEYS='{"ключ": "pro"}')
    response = app.client.get("/stocks/ACME/history", headers=[(b"X-API-Key", "ключ".encode())])
    assert response.headers["RateLimit-Policy"] == '"history";q=500;w=60'
    assert app.client.get("/stocks/ACME/history", headers=[(b"X-API-Key", b"\xff")]).status_code == 401


def test_a_key_never_reaches_redis(app, server):
    app.get("/stocks/ACME/history", **KEY)
    (key,) = server.client.keys("*")
    assert re.fullmatch("rl:history:[0-9a-f]{32}", key)


def test_the_secret_decides_the_name(app, start, server):
    app.get("/stocks/ACME/history", **KEY)
    start(RATE_LIMIT_SECRET="pepper").get("/stocks/ACME/history", **KEY)
    assert len(server.client.keys("rl:history:*")) == 2


def test_a_login_that_is_refused_counts(app, server):
    def attempt(password, username="alice"):
        return app.client.post("/login", json={"username": username, "password": password})

    assert [attempt("guess").status_code for _ in range(5)] == [401] * 5
    refused = attempt("open sesame")
    assert refused.status_code == 429
    # Unlike elsewhere, each attempt restarts the wait, because the newest five count.
    assert [attempt("guess").status_code for _ in range(5)] == [429] * 5
    (key,) = server.client.keys("*")
    assert server.client.xlen(key) > 5
    assert "alice" not in key
    assert attempt("guess", "bob").status_code == 401, "another account is not locked"
    assert app.client.post("/login", json={"username": "x" * 101, "password": ""}).status_code == 422


def test_a_right_password_is_no_attempt(app, server):
    def attempt(password):
        return app.client.post("/login", json={"username": "alice", "password": password}).status_code

    assert [attempt("open sesame") for _ in range(6)] == [200] * 6
    assert server.client.keys() == []
    # It also forgets the wrong ones.
    assert [attempt("guess") for _ in range(4)] == [401] * 4
    assert attempt("open sesame") == 200
    assert [attempt("guess") for _ in range(6)] == [401] * 5 + [429]


def test_a_user_is_one_however_the_name_is_spelled(app, server):
    def attempt(username, password="guess"):
        return app.client.post("/login", json={"username": username, "password": password})

    spellings = ["anna", "Anna", "anna ", "\tANNA\u00a0", "\uff41nna", "ANN\uff21"]
    assert [attempt(name).status_code for name in spellings] == [401] * 5 + [429]
    assert len(server.client.keys()) == 1
    assert attempt("Straße").headers["RateLimit"].startswith('"login";r=4;')
    assert attempt("STRASSE").headers["RateLimit"].startswith('"login";r=3;')
    # Composed or decomposed, lower case or not.
    assert attempt("é").headers["RateLimit"].startswith('"login";r=4;')
    assert attempt("E\u0301").headers["RateLimit"].startswith('"login";r=3;')
    assert attempt(" Bob ", "open sesame").json() == {"message": "Welcome, bob."}


def test_a_401_has_the_headers_too(app):
    response = app.client.post("/login", json={"username": "alice", "password": "guess"})
    assert response.status_code == 401
    assert response.headers["RateLimit"].startswith('"login";r=4;')


def test_completions_cost_tokens_of_the_client_and_of_the_service(start):
    app = start(API_KEYS='{"a": "free", "b": "pro", "c": "pro"}')

    def complete(tokens, client="a"):
        body = {"prompt": "one two", "max_tokens": tokens - 2}
        return app.client.post("/completions", json=body, headers={"X-API-Key": client})

    response = complete(600)
    assert response.json() == {"completion": "owt eno", "tokens": 600}
    assert response.headers["RateLimit-Policy"] == '"client-tokens";q=1000;w=60, "all-tokens";q=5000;w=60'
    pattern = rf'"client-tokens";r=400;t={MINUTE}, "all-tokens";r=4400;t={MINUTE}'
    assert re.fullmatch(pattern, response.headers["RateLimit"])
    refused = complete(500)
    assert refused.status_code == 429
    assert re.fullmatch(MINUTE, refused.headers["Retry-After"])
    assert refused.json()["violated-policies"] == ["client-tokens"]
    # What one limit refused is not charged to the other.
    assert '"all-tokens";r=4000;' in complete(400).headers["RateLimit"]
    assert complete(3000, "b").status_code == complete(1000, "c").status_code == 200
    refused = complete(3, "c")
    assert refused.status_code == 429
    assert refused.json()["violated-policies"] == ["all-tokens"]
    assert '"client-tokens";r=2000;' in refused.headers["RateLimit"]


def test_what_can_never_be_has_no_retry_after(app):
    body = {"prompt": "", "max_tokens": 1001}
    response = app.client.post("/completions", json=body, headers=KEY)
    assert response.status_code == 429
    assert "Retry-After" not in response.headers
    assert response.json()["detail"] == "No wait helps."


def test_a_limit_is_one_command(start, tmp_path):
    server = Server(tmp_path)  # which no monitor reads
    app = start(REDIS_URL=server.url, MONITOR="false")

    def complete():
        return app.client.post("/completions", json={"prompt": ""}, headers=KEY)

    assert (app.get("/protected").status_code, complete().status_code) == (200, 200)
    server.client.config_resetstat()
    assert [app.get("/protected").status_code for _ in range(12)] == [200] * 9 + [429] * 3
    complete()
    calls = server.calls()
    server.kill()
    assert calls == {"ratelimit.hit": 12, "ratelimit.mhit": 1}


def test_of_200_requests_at_once_exactly_100_pass(app):
    codes = at_once(200, "/stocks/ACME/history", app, headers=KEY)
    assert (codes.count(200), codes.count(429)) == (100, 100)


def test_two_processes_share_a_limit(app, start):
    codes = at_once(200, "/stocks/ACME/history", app, start(), headers=KEY)
    assert (codes.count(200), codes.count(429)) == (100, 100)


def test_forwarded_addresses_count_from_trusted_proxies_only(app, start, server):
    def client(app, *forwarded):
        """Who was charged."""
        server.client.flushall()
        assert (
            app.client.get("/protected", headers=[("X-Forwarded-For", line) for line in forwarded]).status_code == 200
        )
        (key,) = server.client.keys()
        return key.removeprefix("rl:protected:")

    assert client(app, "203.0.113.7") == "127.0.0.1"

    behind = start(TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8")
    assert client(behind, "203.0.113.7") == "203.0.113.7"
    assert client(behind, "198.51.100.1, 203.0.113.7, 10.1.2.3") == "203.0.113.7", "what a client claims is ignored"
    assert client(behind, "203.0.113.7:4711") == "203.0.113.7"
    assert client(behind, "2001:db8:1:2:3:4:5:6") == client(behind, "2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert client(behind, "2001:db8:1:3::1") != client(behind, "2001:db8:1:2::1")
    assert client(behind, "::ffff:203.0.113.7") == "203.0.113.7"
    assert client(behind, "unknown") == "unknown"
    # Two lines are one list.
    assert client(behind, "198.51.100.1", "203.0.113.7") == "203.0.113.7"


def test_openapi_tells_what_limits_need(app):
    paths = app.get("/openapi.json").json()["paths"]
    assert paths["/stocks/{symbol}/history"]["get"]["security"] == [{"APIKeyHeader": []}]
    for path in ("/protected", "/completions"):
        assert [operation["responses"]["429"]["description"] for operation in paths[path].values()] == [
            "Too Many Requests"
        ]
    assert "Completion" in json.dumps(paths["/completions"]["post"]["requestBody"])
    assert not [path for path in paths if "monitor" in path]
