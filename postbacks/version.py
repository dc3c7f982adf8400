"""Which version of postbacks this is, and the names of delivering loops, which say it."""

from __future__ import annotations

import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Final

try:
    VERSION: Final = version("postbacks")
except PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0"  # type: ignore[misc]

#: The last version whose loops and ticks do not say which they are.
SILENT: Final = "0.1.0"


_worker = ""


def set_worker(name: str) -> None:
    """Set the node name of the worker whose loops this process and its children run."""
    global _worker  # noqa: PLW0603 - state of the process
    _worker = name


def new_loop_id() -> str:
    """Name a delivering loop for the claimers: the name says which version delivers, and in which worker."""
    return "@".join(filter(None, (uuid.uuid4().hex, VERSION, _worker)))


def version_of(token: str) -> str:
    """Return the version of the loop with this name."""
    return [*token.split("@", 2), ""][1] or SILENT


def worker_of(token: str) -> str:
    """Return the worker of the loop with this name; empty where an older version's loop does not say."""
    return [*token.split("@", 2), "", ""][2]
