"""Sources of conditions that the finder asks, in this order. Append yours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from postbacks.operate.incidents.conditions import Source

#: Kind -> its source.
SOURCES: Final[dict[str, Source]] = {}
