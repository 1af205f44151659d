"""Who is limited. Each is a dependency of FastAPI, as any function may be that returns a string."""

import hmac
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from fastapi import Depends, Request


async def client_address(request: Request) -> str:
    """The client's address. Which proxies may name it in X-Forwarded-For is the HTTP server's business: uvicorn's
    `forwarded_allow_ips`, by which it takes the right-most address that is not such a proxy's.

    Of IPv6 it is the /64: one subscriber has at least that many addresses, and would have as many limits.
    """
    host = request.client.host if request.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:  # a unix socket, or a proxy that hides its client
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address.packed, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


async def everyone() -> str:
    """One log for all clients together."""
    return "everyone"


def hashed(source: Callable, secret: str) -> Callable:
    """Who, by something that must not be stored: `by=hashed(APIKeyHeader(name="X-API-Key"), secret)`.

    Names of keys are seen by everyone who may look into Redis: in MONITOR, the slow log, backups, RATELIMIT.TOP. So the
    name is an HMAC, which nobody can turn back without the secret, not even by trying all the short ones.
    """

    async def who(value: str = Depends(source)) -> str:
        return hmac.digest(secret.encode(), value.encode(), "sha256")[:16].hex()

    return who
