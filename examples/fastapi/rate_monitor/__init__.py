"""A REST API with exact rate limits, and a page on which one can watch them.

| file | what it is |
| --- | --- |
| `limits.py` | `RateLimit` and `AllOf`: the dependencies that routes declare, and the headers they answer with |
| `limiter.py` | `Limiter`: the connection to Redis, and what happens when it is away |
| `clients.py` | who is limited: an address, the holder of a secret, everyone |
| `app.py` | the routes |
| `monitor.py`, `static/` | the live page |
| `settings.py` | the environment variables |
| `__main__.py` | runs the application |

The first three know nothing of the others, so that they can be taken into another application as they are.
"""

from .clients import client_address, everyone, hashed
from .limiter import Limiter
from .limits import AllOf, Answer, RateLimit

__all__ = ["AllOf", "Answer", "Limiter", "RateLimit", "client_address", "everyone", "hashed"]
