"""Who is limited. Each is a FastAPI dependency. So is any function of yours that returns a string, an int or None."""

import hashlib
import hmac
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

MAX_NAME = 128


async def client_address(request: HTTPConnection) -> str:
    """The client's address. The HTTP server decides which proxies may name it in X-Forwarded-For: uvicorn, with
    `forwarded_allow_ips`, takes the right-most address that is not such a proxy's.

    For IPv6 it is the /64: one subscriber has at least that many addresses, and would have as many limits.
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
    """Who, from something that must not be stored: `by=hashed(APIKeyHeader(name="X-API-Key"), secret)`.

    Everyone who may look into Redis sees names of keys: in MONITOR, the slow log, backups, RATELIMIT.TOP. So the name
    is an HMAC. Without the secret nobody can reverse it, not even by trying all short values. None, an optional key
    that was not sent, stays None.
    """

    async def who(value: Any = Depends(source)) -> str | None:
        if value is None:
            return None
        return hmac.digest(secret.encode(), _encoded(_text(value, source)), "sha256")[:16].hex()

    return who


async def name_of(value: Any, source: Callable, request: HTTPConnection) -> str:
    """What `source` returned, as the name of a log. None becomes the client's address, so a client without a key has a
    limit too. A long name becomes its hash, because it is part of a key and of a header."""
    text = await client_address(request) if value is None else _text(value, source)
    encoded = _encoded(text)
    return hashlib.sha256(encoded).hexdigest() if len(encoded) > MAX_NAME else encoded.decode()


def _text(value: Any, source: Callable) -> str:
    # Other types have no text, or another one for each object. A log for each request would limit nobody.
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise TypeError(f"by={called(source)} returned a {type(value).__name__}, not a string, an int or None")
    return str(value)


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # JSON may contain half a surrogate pair


def called(dependency: Any) -> str:
    """Its name, for errors."""
    return getattr(dependency, "__qualname__", None) or type(dependency).__qualname__
