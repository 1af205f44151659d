"""A budget of tokens a minute for each user of a language model: tokens.py user prompt

The prompt is charged before the model is called, and refused if it is more than what is left. What the answer costs is
known only afterwards and has been spent by then: STRICT counts it even where the budget does not allow it, and the user
waits for it to leave the window. So a budget is exceeded by one answer at most for each call that is under way.
"""

import math
import os
import sys

import redis

BUDGET = 100, "1m"
server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))


def count(text):
    return len(text.split())  # your tokenizer


def complete(prompt):
    return " ".join(reversed(prompt.split()))  # your model


def charge(user, tokens, *options):
    return server.execute_command("RATELIMIT.HIT", f"tokens:{user}", *BUDGET, "COST", tokens, *options)


def ask(user, prompt):
    allowed, limit, _, retry_after, *_ = charge(user, count(prompt))
    if retry_after == -1:
        sys.exit(f"A prompt may have {limit} tokens.")
    if not allowed:
        sys.exit(f"Try again in {math.ceil(retry_after / 1000)} s.")
    answer = complete(prompt)
    # More than the limit would never be allowed.
    _, _, remaining, *_ = charge(user, min(count(answer), limit), "STRICT")
    return answer, remaining


if __name__ == "__main__":
    answer, remaining = ask(*sys.argv[1:])
    print(answer)
    print(f"{remaining} tokens left")
