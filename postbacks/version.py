"""Which version of postbacks this is."""

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


def new_token() -> str:
    """A name for a delivering loop among the claimers: it says which version delivers."""
    return f"{uuid.uuid4().hex}@{VERSION}"


def version_of(token: str) -> str:
    """The version of the loop with this name."""
    return token.partition("@")[2] or SILENT
