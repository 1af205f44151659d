"""`python -m redis_ratelimit`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from redis_ratelimit import Limiter
from servers import Server


def run(server: Server, *arguments: str) -> tuple[int, list[str], str]:
    command = [sys.executable, "-m", "redis_ratelimit", "--url", server.url, "--every", "0.01", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_top(start: Callable[..., Server]) -> None:
    server = start(module=True)
    server.client().execute_command("RATELIMIT.RESETSTAT")
    for key, refusals in (("rl:a:\x1b[31mred", 1), ("rl:a:192.0.2.1", 3)):
        for _ in range(refusals):
            Limiter(server.url, refusal_cache=0).hit(key, "0/minute")
    code, (head, *rows), _ = run(server, "top", "--times", "1")
    assert code == 0 and head.split() == ["key", "refused", "last"]
    assert [row.split()[:2] for row in rows] == [["rl:a:192.0.2.1", "3"], [r"rl:a:\x1b[31mred", "1"]]
    assert rows[0].endswith(" s ago")
    assert len(run(server, "top", "--count", "1", "--times", "2")[1]) == 4


def test_peek_and_watch(server: Server) -> None:
    Limiter(server.url).hit("key", "2/minute;5/hour", cost=2)
    code, lines, _ = run(server, "peek", "key", "2/minute", "5/hour", "0/second")
    assert code == 0 and lines[0].split() == ["limit", "left", "next", "hit", "unused"]
    minute, hour, never = (line.split() for line in lines[1:])
    assert minute[:3] == ["2/1m", "0", "in"] and 50 < float(minute[3]) <= 60 and minute[4] == "s"
    assert hour[:3] == ["5/1h", "3", "now"] and 3500 < float(hour[4]) <= 3600
    assert never[:3] == ["0/1s", "0", "never"]
    assert len(run(server, "watch", "key", "2/minute", "--times", "3")[1]) == 6
    assert Limiter(server.url).peek("key", "2/minute;5/hour", cost=0).remaining == 0


def test_what_is_wrong(start: Callable[..., Server]) -> None:
    code, lines, error = run(start(), "top")
    assert (code, lines) == (1, []) and "unknown command" in error
    code, _, error = run(start(), "peek", "key", "many")
    assert code == 1 and "is not a limit" in error
    server = start(fresh=True)
    server.close()
    for arguments in (("peek", "key", "1/second"), ("top",)):
        code, lines, error = run(server, *arguments)
        assert (code, lines) == (1, []) and error.splitlines()[-1].startswith("redis_ratelimit: ")
