"""A queue worker that waits for its turn. Start any number: the API sees at most 5 calls in any half second.

Give them work: redis-cli LPUSH jobs one two three
"""

import os
import time

import redis

# Whoever waits a minute for the server must not give up before that.
server = redis.Redis.from_url(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True, socket_timeout=70
)


def wait_for_turn(key, limit, window):
    while True:
        # The server answers when the turn has come. Workers have their turns in the order in which they asked.
        allowed, _, _, retry_after, *_ = server.execute_command("RATELIMIT.HIT", key, limit, window, "WAIT", "1m")
        if allowed:
            return
        # More workers are ahead than have their turns within a minute.
        time.sleep(min(retry_after / 1000, 60))


def call_the_api(job):
    server.rpush("finished", job)  # whatever must not be called too often


while True:
    # A job stays in a second list until it is finished, so none is lost if a worker dies.
    job = server.blmove("jobs", "taken", timeout=1, src="RIGHT", dest="LEFT")
    if job is not None:
        wait_for_turn("api", 5, "500ms")
        call_the_api(job)
        server.lrem("taken", 1, job)
