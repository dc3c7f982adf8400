"""Strip of tries: what came of POSTs to one receiver, beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.web import charts
from postbacks.web.addresses import path_to
from postbacks.web.zones import written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from markupsafe import Markup

    from postbacks.history.tries import Try


def strip(tries: Sequence[Try], zone: tzinfo, words: Callable[[Try], str], *path: str) -> Markup | None:
    """Draw the outcomes of POSTs, each leading to its postback; None for none.

    Args:
        tries: the oldest first.
        zone: of their times.
        words: says what came of one.
        path: of the page of postbacks, in its parts.
    """
    if not tries:
        return None
    bars = [
        charts.Bar(
            f"{written(one.at_ms, zone, '%Y-%m-%d %H:%M:%S')} {words(one)} after {one.elapsed_ms:,} ms",
            {"good" if one.is_delivered else "bad": 1},
            path_to(*path, one.postback_id),
        )
        for one in tries
    ]
    return charts.bars(f"Outcomes of the latest {len(bars)} POSTs, the oldest first", bars, is_strip=True)
