"""Settings from the environment. A test compares them with the README's table."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    redis_url: str = "redis://127.0.0.1:6379/0"
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    trusted_proxies: str = ""
    rate_limit_fail: Literal["open", "closed", "local"] = "open"
    rate_limit_timeout: PositiveFloat = 1.0
    rate_limit_secret: SecretStr = SecretStr("")
    api_keys: dict[str, Literal["free", "pro"]] = {"demo": "free", "demo-pro": "pro"}
    login_password: SecretStr = SecretStr("open sesame")
    monitor: bool = True
