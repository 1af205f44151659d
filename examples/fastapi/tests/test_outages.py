"""Redis away, hanging, back, and without the module. The application is never restarted."""

import signal

import httpx
import pytest
from conftest import at_once, wait_for

LOGIN = {"username": "a", "password": "open sesame"}


def limited(app):
    return "RateLimit" in app.get("/strict").headers


@pytest.mark.parametrize(("fail", "code"), [("open", 200), ("closed", 503), ("local", 200)])
def test_the_routes_fail_as_the_setting_says(start, server, fail, code):
    app = start(RATE_LIMIT_FAIL=fail, RATE_LIMIT_TIMEOUT="1")
    assert app.get("/strict").status_code == 200
    server.kill()
    codes = [app.get("/strict").status_code for _ in range(7)]
    assert codes == ([200] * 5 + [429] * 2 if fail == "local" else [code] * 7)
    assert app.client.post("/login", json=LOGIN).status_code == 503, "this one says for itself"
    assert app.get("/").status_code == 200
    problem = wait_for("the monitor", lambda: app.get("/monitor/data").json()["problem"])
    assert problem["text"] == "Redis does not answer"
    means = {"open": "without limits", "closed": "answer 503", "local": "on its own"}
    assert means[fail] in problem["meanwhile"] and "/login answers 503" in problem["meanwhile"]
    server.start()
    wait_for("the limiter", lambda: app.client.post("/login", json=LOGIN).status_code == 200)
    wait_for("the limiter", lambda: limited(app) and app.get("/monitor/data").json()["problem"] is None)
    # Once by each of the two limiters.
    assert app.output().count("Redis is away") == app.output().count("Redis answers again") == 2


def test_a_server_that_hangs(start, server):
    app = start(RATE_LIMIT_TIMEOUT="0.5")
    assert limited(app)
    server.send(signal.SIGSTOP)
    try:
        assert set(at_once(100, "/strict", app)) == {200}
    finally:
        server.send(signal.SIGCONT)
    wait_for("the limiter", lambda: limited(app))


def test_a_server_that_was_away_at_the_start(start, server):
    server.kill()
    app = start()
    assert app.get("/strict").status_code == 200
    assert app.client.post("/login", json=LOGIN).status_code == 503
    server.start()
    wait_for("the limiter", lambda: limited(app))


def test_a_server_without_the_module_limits_by_the_script_and_the_monitor_says_so(start, server):
    app = start()
    server.kill()
    server.start(module=False)
    try:
        codes = wait_for("the limiter", lambda: limited(app) and [app.get("/protected").status_code for _ in range(12)])
        assert codes == [200] * 10 + [429] * 2
        problem = wait_for("the monitor", lambda: app.get("/monitor/data").json()["problem"])
        assert problem["text"].startswith("Redis has not loaded the module")
    finally:
        server.kill()
        server.start()


def test_a_wrong_password_is_a_fault_of_the_settings_and_no_outage(start, server):
    server.client.acl_setuser("somebody", enabled=True, passwords="+p", keys="*", commands=["+@all"], reset=True)
    app = start(REDIS_URL=server.url.replace("unix://", "unix://somebody@") + "?password=q")
    assert httpx.get(f"{app.url}/strict").status_code == 500
    problem = wait_for("the monitor", lambda: app.get("/monitor/data").json()["problem"])
    assert (problem["text"][:14], problem["meanwhile"]) == ("Redis answers:", "")
