"""Which version of postbacks this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

try:
    VERSION: Final = version("postbacks")
except PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0"  # type: ignore[misc]

#: The last version whose loops and ticks do not say which they are.
SILENT: Final = "0.1.0"
