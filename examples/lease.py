"""A limit that is too busy for one server: a process takes units in batches and serves from them. lease.py requests

Ask `hit()` for each request, from one thread. One call to the server serves up to `batch` of them. What is left of a
batch is given back with the first request after `lifetime` seconds. docs/scale.md says what that admits.
"""

import os
import sys
import time

import redis


class Lease:
    def __init__(self, server, key, limit, window, batch, lifetime):
        self.server, self.key, self.policy = server, key, (limit, f"{window}ms")
        self.batch, self.lifetime, self.window = batch, lifetime, window / 1000
        self.left, self.until, self.refused, self.calls = 0, 0.0, 0.0, 0

    def call(self, name, *arguments):
        self.calls += 1
        return self.server.execute_command(f"RATELIMIT.{name}", self.key, *arguments)

    def give_back(self):
        # Later, its units have left the window, and a refund would take those of others.
        if self.left and time.monotonic() < self.until - self.lifetime + self.window:
            self.call("REFUND", "COST", self.left)
        self.left = 0

    def hit(self):
        now = time.monotonic()
        if now >= self.until:
            self.give_back()
        if self.left:
            self.left -= 1
            return True
        if now < self.refused:
            return False
        if self.call("HIT", *self.policy, "COST", self.batch)[0]:
            self.left, self.until = self.batch - 1, now + self.lifetime
            return True
        # There is no room for a batch, but perhaps for one.
        allowed, _, _, retry_after, *_ = self.call("HIT", *self.policy)
        self.refused = now + retry_after / 1000
        return bool(allowed)


if __name__ == "__main__":
    server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    lease = Lease(server, "busy", 100, 60_000, batch=20, lifetime=10)
    requests = int(sys.argv[1])
    admitted = sum(lease.hit() for _ in range(requests))
    lease.give_back()
    print(f"{admitted} of {requests} requests admitted, {lease.calls} calls")
