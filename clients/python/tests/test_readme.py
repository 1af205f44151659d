"""Every snippet of the README, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import ROOT, Server

README = (ROOT / "clients/python/README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", README, re.DOTALL | re.MULTILINE)
KINDS = {
    "from redis_ratelimit.fastapi": "asgi",
    "from starlette": "asgi",
    "from flask": "wsgi",
    "from wsgiref": "wsgi",
    "print(": "print",
}


def kind_of(text: str) -> str:
    return next(kind for word, kind in KINDS.items() if word in text)


# Django has two files.
WHOLE = [(text, output) for text, output in SNIPPETS if not text.startswith(("# settings.py", "# views.py"))]
SETTINGS, VIEWS = (next(text for text, _ in SNIPPETS if text.startswith(name)) for name in ("# settings", "# views"))


def run(kind: str, text: str, server: Server, folder: Path) -> str:
    text = text.replace("redis://localhost:6379", server.url)
    text = text.replace("redis+ratelimit://localhost:6379", f"redis+ratelimit+unix://{server.socket}")
    assert "localhost" not in text
    program = str(Path(__file__).with_name("snippet.py"))
    done = subprocess.run(
        [sys.executable, program, kind], input=text, capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("text", "output"), WHOLE, ids=[kind_of(text) for text, _ in WHOLE])
def test_a_snippet(text: str, output: str, start: Callable[..., Server], tmp_path: Path) -> None:
    kind = kind_of(text)
    printed = run(kind, text, start(module=True), tmp_path)
    if kind == "print":
        assert printed == (output or "come in\n")
    else:
        # Starlette's application has no route.
        passed = 404 if "from starlette" in text else 200
        assert printed == f"{[passed] * 10 + [429] * 2}\n"


def test_the_snippet_of_django(start: Callable[..., Server], tmp_path: Path) -> None:
    assert run("django", SETTINGS + VIEWS, start(module=True), tmp_path) == f"{[200] * 10 + [429] * 2}\n"


def test_all_are_run() -> None:
    assert len(WHOLE) + 2 == README.count("```python") == 8
