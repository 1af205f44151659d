"""`python -m redis_ratelimit_module` prints the path of the module, for `redis-server --loadmodule`."""

import sys

from redis_ratelimit_module import path

try:
    print(path())
except OSError as error:
    sys.exit(f"redis_ratelimit_module: {error}")
