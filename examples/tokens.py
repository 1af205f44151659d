"""A budget of tokens a minute for each user of a language model: tokens.py user prompt

The prompt is charged before the model is called, and refused if it costs more than is left. The cost of the answer is
known only after it was spent. STRICT counts it even if the budget does not allow it, and the user waits until it has
left the window. So each running call can exceed the budget by one answer at most.
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
    # A cost over the limit would never be allowed, and would not be counted.
    _, _, remaining, *_ = charge(user, min(count(answer), limit), "STRICT")
    return answer, remaining


if __name__ == "__main__":
    answer, remaining = ask(*sys.argv[1:])
    print(answer)
    print(f"{remaining} tokens left")
