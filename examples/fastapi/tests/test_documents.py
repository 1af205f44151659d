"""Runs what the README shows, and counts what it counts."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import PATIENCE, App, wait_for
from pydantic import SecretStr

from rate_monitor.settings import Settings

FOLDER = Path(__file__).parents[1]
README = (FOLDER / "README.md").read_text()
RECIPE, OURS = re.findall(r"```python\n(.*?)```", README, re.S)


def lines(code: str) -> int:
    return len([line for line in code.splitlines() if line.strip()])


def row(name: str) -> list[str]:
    """The cells of a table's row."""
    cells = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", README, re.M)[1].split("|")
    return [cell.strip() for cell in cells]


@pytest.fixture
def run(start, tmp_path):
    """Starts a program of the README."""

    def run(code: str) -> App:
        (tmp_path / "shown.py").write_text(code)
        return start(tmp_path / "shown.py")

    return run


def test_beside_the_recipe(run, server):
    commands = {}
    for name, code in [("recipe", RECIPE), ("ours", OURS)]:
        app = run(code)
        server.client.config_resetstat()
        assert [app.get("/protected").status_code for _ in range(11)] == [200] * 10 + [429]
        commands[name] = server.calls()
    assert commands == {"recipe": {"xadd": 11, "xtrim": 11, "xlen": 11}, "ours": {"ratelimit.hit": 11}}
    assert row("commands, and round trips, a request") == ["3", "1"]
    assert row("lines of the application") == [str(lines(RECIPE)), str(lines(OURS))]


def test_the_table_of_settings():
    assert len(re.findall(r"^\| `[A-Z_]+` \|", README, re.M)) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            text = default.get_secret_value()
        else:
            text = default if isinstance(default, str) else json.dumps(default)
        assert row(f"`{name.upper()}`")[0].strip("`") == text


def test_the_acl(start, server):
    rules = re.search(r"An ACL for it: `(.*?)`.*?`(.*?)`", README, re.S)
    server.client.execute_command("ACL", "SETUSER", "app", "on", ">secret", *rules[1].split(), *rules[2].split())
    app = start(REDIS_URL=server.url.replace("unix://", "unix://app@") + "?password=secret", RATE_LIMIT_FAIL="closed")
    assert app.get("/protected").status_code == 200
    body, key = {"prompt": "", "max_tokens": 1}, {"X-API-Key": "demo"}
    assert app.client.post("/completions", json=body, headers=key).status_code == 200
    assert app.client.post("/login", json={"username": "a", "password": "open sesame"}).status_code == 200
    assert not server.client.keys("rl:login:*"), "and its log may be forgotten"
    wait_for("a reading", lambda: app.get("/monitor/data").json()["admitted"]["all"] == 4)
    told = app.get("/monitor/data?client=protected:127.0.0.1").json()
    assert (told["problem"], len(told["window"]["hits"])) == (None, 1)


def test_the_table_of_routes(app):
    shown = set(re.findall(r"^\| `(GET|POST) (/\S*)` \|", README, re.M)) - {("GET", "/monitor")}
    paths = app.get("/openapi.json").json()["paths"]
    assert shown == {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_the_session(app):
    def steady(text):
        """Without what changes from run to run: the time of day, and the seconds passed of a minute."""
        return re.sub(r"\b5\d\b", "60", re.sub(r"^date: .*", "date:", text, flags=re.M))

    (session,) = re.findall(r"```console\n(.*?)```", README, re.S)
    shown = ""
    for command in re.findall(r"^\$ (.*)", session, re.M):
        run = ["sh", "-c", command.replace("http://127.0.0.1:8000", app.url)]
        output = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE).stdout.replace("\r", "")
        shown += f"$ {command}\n{output.rstrip()}\n"
    assert steady(shown) == steady(session)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)", README):
        assert "://" in link or (FOLDER / link).exists(), link
