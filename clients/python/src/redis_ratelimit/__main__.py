"""Looks at limits from a terminal: `python -m redis_ratelimit --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

import redis

from . import Limiter, UnsupportedError

CLEAR = "\x1b[H\x1b[2J"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with (
            Limiter(options.url, timeout=2.0, fail="closed") as limiter,
            cast(Any, redis.Redis).from_url(options.url) as client,
        ):
            left = options.times
            while left != 0:
                if options.command == "top":
                    rows = _top(client, options.count)
                else:
                    rows = _peek(limiter, options.key, options.limits)
                text = _table(rows)
                print(f"{CLEAR}{text}" if options.times != 1 and sys.stdout.isatty() else text, flush=True)
                left -= 1
                if left != 0:
                    time.sleep(options.every)
    except KeyboardInterrupt:
        return 0
    except (redis.RedisError, OSError, UnsupportedError, ValueError) as error:
        print(f"redis_ratelimit: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m redis_ratelimit", description="Looks at limits.")
    url = os.environ.get("REDIS_URL", "redis://localhost:6379")
    parser.add_argument("--url", default=url, help="default: $REDIS_URL, or redis://localhost:6379")
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two looks; default: 1")
    commands = parser.add_subparsers(dest="command", required=True)
    top = commands.add_parser("top", help="the keys that are refused most, again and again; needs the module")
    top.add_argument("--count", type=int, default=20, help="how many keys; default: 20")
    top.add_argument("--times", type=int, default=-1, help="how often; default: until interrupted")
    for name, times, text in (("peek", 1, "a key's limits, once"), ("watch", -1, "a key's limits, again and again")):
        look = commands.add_parser(name, help=text)
        look.add_argument("key", help="such as rl:reports:192.0.2.1")
        look.add_argument("limits", nargs="+", metavar="limit", help="such as 10/minute")
        look.add_argument("--times", type=int, default=times, help=argparse.SUPPRESS)
    return parser


def _top(client: Any, count: int) -> list[list[str]]:
    reply = client.execute_command("RATELIMIT.TOP", "COUNT", count)
    seconds, microseconds = client.time()
    now = seconds * 1_000 + microseconds // 1_000
    rows = [["key", "refused", "last"]]
    for key, refused, last in reply:
        rows.append([_shown(key), str(refused), f"{max(0, now - last) / 1_000:.1f} s ago"])
    return rows


def _peek(limiter: Limiter, key: str, limits: Sequence[str]) -> list[list[str]]:
    now, hit = (limiter.peek(key, *limits, cost=cost, tiers=True) for cost in (0, 1))
    if "closed" in (now.source, hit.source):
        raise redis.ConnectionError("Redis is away")
    rows = [["limit", "left", "next hit", "unused"]]
    for limit, tier, following in zip(now.policy, now.tiers, hit.tiers, strict=True):
        wait = following.retry_after
        rows.append([str(limit), str(tier.remaining), "never" if wait is None else _in(wait), _in(tier.reset_after)])
    return rows


def _in(seconds: float) -> str:
    return f"in {seconds:.3f} s" if seconds else "now"


def _shown(key: bytes) -> str:
    """A key's name, without what a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in key.decode(errors="backslashreplace"))


def _table(rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


if __name__ == "__main__":
    sys.exit(main())
