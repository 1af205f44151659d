"""The module for Redis and Valkey, as a file that the server loads: `path()` says where it is."""

from pathlib import Path

__all__ = ["path"]


def path() -> str:
    """Return the absolute path of `libratelimit.so`.

    The server loads it only if it is executable. If an installer has dropped that, this mends it, or raises
    `PermissionError`, which says what to do. Raises `FileNotFoundError` if the file is not there.
    """
    module = Path(__file__).resolve().with_name("libratelimit.so")
    mode = module.stat().st_mode
    if not mode & 0o111:
        try:
            # Whoever may read it may execute it.
            module.chmod(mode | (mode & 0o444) >> 2)
        except PermissionError:
            raise PermissionError(f"the server loads only an executable file; run: chmod +x {module}") from None
    return str(module)
