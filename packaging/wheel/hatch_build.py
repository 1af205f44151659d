"""Puts the module that MODULE names into the wheel, which is then for this architecture alone."""

import os
import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AddModule(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        module = Path(os.environ["MODULE"]).resolve()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux2014_{platform.machine()}"
        build_data["force_include"][str(module)] = "redis_ratelimit_module/libratelimit.so"
