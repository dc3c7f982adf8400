"""Version of postbacks, and ids of delivering loops, which carry the version and the worker."""

from __future__ import annotations

import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Final

try:
    VERSION: Final = version("postbacks")
except PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0"  # type: ignore[misc]

#: Last version whose loops and ticks do not carry their version.
SILENT: Final = "0.1.0"


_worker = ""


def set_worker(name: str) -> None:
    """Set the node name of the worker whose loops this process and its children run."""
    global _worker  # noqa: PLW0603 - state of the process
    _worker = name


def new_loop_id() -> str:
    """Make the id of a delivering loop among the claimers; it carries this version and the worker's name."""
    return "@".join(filter(None, (uuid.uuid4().hex, VERSION, _worker)))


def version_of(loop_id: str) -> str:
    """Return the version of the loop with this id."""
    return [*loop_id.split("@", 2), ""][1] or SILENT


def worker_of(loop_id: str) -> str:
    """Return the worker of the loop with this id; empty for a loop of a version that does not carry it."""
    return [*loop_id.split("@", 2), "", ""][2]
