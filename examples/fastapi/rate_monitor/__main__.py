"""Runs the application: `rate-monitor`, or `python -m rate_monitor`."""

import socket
import sys
from contextlib import suppress

import uvicorn
from pydantic import ValidationError


def main() -> None:
    try:
        from . import app as module
    except ValidationError as error:
        sys.exit(f"rate-monitor: {error}")
    settings = module.settings
    try:
        listener = socket.create_server((settings.http_host, settings.http_port), backlog=2048)
    except OSError as error:
        sys.exit(
            f"rate-monitor: port {settings.http_port} of {settings.http_host} cannot be had ({error.strerror}). "
            f"Try: HTTP_PORT={settings.http_port + 1}"
        )
    url = f"http://{settings.http_host}:{listener.getsockname()[1]}"
    print(f"\n    {url}/protected\n    {url}/docs\n    {url}/monitor\n", flush=True)
    config = uvicorn.Config(module.app, forwarded_allow_ips=settings.trusted_proxies, server_header=False)
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # raised again once all is closed
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
