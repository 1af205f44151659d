"""Real servers for tests: each on a unix socket in a folder of its own, killed at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "target/release/libratelimit.so"
FAKETIME = next(Path("/usr/lib").rglob("libfaketime.so.1"), None)
START = 1_767_225_600_000  # milliseconds of a day on which nothing happened


def programs() -> list[str]:
    """The one in PATH, and those in target/servers, each version once. RATELIMIT_SERVER names another one instead."""
    own = os.environ.get("RATELIMIT_SERVER") or shutil.which("redis-server")
    found = {label(own): own} if own else {}
    if "RATELIMIT_SERVER" not in os.environ:
        # A glob does not follow links.
        folder = (ROOT / "target/servers").resolve()
        for path in sorted([*folder.glob("**/redis-server"), *folder.glob("**/valkey-server")]):
            if os.access(path, os.X_OK):
                found.setdefault(label(str(path)), str(path))
    return list(found.values())


def label(program: str) -> str:
    """What a server calls itself: `Valkey 9.1.2`."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"{words[0]} {words[2].removeprefix('v=')}"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server:
    """`clock=True` gives it a clock that stands still until `set_clock`. (Valkey 9.1 reads the processor's instead.)"""

    def __init__(
        self, program: str = "redis-server", *options: str, module: bool = False, clock: bool = False, port: int = 0
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ratelimit-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.socket = self.folder / "server.sock"
        self.url = f"unix://{self.socket}"
        self.port = port
        self.command = [program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        self.command += ["--save", "", "--enable-debug-command", "yes", "--logfile", "server.log", *options]
        if module:
            self.command += ["--loadmodule", str(MODULE)]
        self.environment = dict(os.environ)
        if clock:
            self.set_clock(START)
            self.environment |= {
                "LD_PRELOAD": f"{FAKETIME} libc.so.6",
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
                "FAKETIME_FMT": "%s",
                "TZ": "UTC",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_NO_CACHE": "1",
            }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.RedisError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = self.folder / "server.log"
                    raise RuntimeError(log.read_text() if log.exists() else "the server does not start") from None
                time.sleep(0.01)

    def set_clock(self, milliseconds: int) -> None:
        """Half a millisecond is added because libfaketime reads a floating-point number."""
        following = self.folder / "clock.next"
        following.write_text(f"{milliseconds // 1000}.{milliseconds % 1000:03}5")
        following.replace(self.folder / "clock")

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis.from_url(self.url, **options)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
