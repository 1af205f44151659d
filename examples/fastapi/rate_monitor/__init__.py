"""A REST API with exact rate limits, and a live page that shows them.

| file | what it is |
| --- | --- |
| `limits.py` | `RateLimit` and `AllOf`: the dependencies that routes declare, and the headers of answers |
| `limiter.py` | `Limiter`: the connection to Redis, and what happens when Redis is away |
| `clients.py` | who is limited: an address, the holder of a secret, everyone |
| `app.py` | the routes |
| `monitor.py`, `static/` | the live page |
| `settings.py` | the environment variables |
| `__main__.py` | runs the application |

The first three do not need the others, so you can copy them into another application as they are.
"""

from .clients import client_address, everyone, hashed
from .limiter import Limiter
from .limits import AllOf, Answer, RateLimit

__all__ = ["AllOf", "Answer", "Limiter", "RateLimit", "client_address", "everyone", "hashed"]
