"""History: a copy of what the broker's ledger knows, in a real database, for whoever searches.

Nothing on the way of delivery reads it or waits for it. People ask ``postbacks.operate`` for stories and documents, which
masks the numbers and texts in them; ``story`` and ``copies_of`` of this room, which do not, are for the rooms above.

::

    from postbacks.history import Query, count, search

    page = search(Query(account="acme", state="dead", limit=100))
    for postback in page.postbacks:
        print(postback.id, postback.reason)
"""

from typing import TYPE_CHECKING, Any

from postbacks.errors import HistoryUnfit
from postbacks.history.query import WITHOUT_DRIVER, Count, Page, Postback, Query

if TYPE_CHECKING:
    from postbacks.history.copies import copies_of as copies_of
    from postbacks.history.counting import Exclusion, count, why_empty
    from postbacks.history.listing import find, pages, search
    from postbacks.history.statistics import StatRow, Stats, stats
    from postbacks.history.timeline import Story
    from postbacks.history.timeline import story as story
else:
    _MODULES = {
        "Exclusion": "postbacks.history.counting",
        "StatRow": "postbacks.history.statistics",
        "Stats": "postbacks.history.statistics",
        "Story": "postbacks.history.timeline",
        "copies_of": "postbacks.history.copies",
        "count": "postbacks.history.counting",
        "find": "postbacks.history.listing",
        "pages": "postbacks.history.listing",
        "search": "postbacks.history.listing",
        "stats": "postbacks.history.statistics",
        "story": "postbacks.history.timeline",
        "why_empty": "postbacks.history.counting",
    }

    # Hidden from type checkers, to which every misspelt name would be Any.
    def __getattr__(name: str) -> Any:
        """Load what needs SQLAlchemy when it is first used: processes that deliver live without it."""
        from importlib import import_module  # noqa: PLC0415 - that is the point

        if name not in _MODULES:
            raise AttributeError(f"module 'postbacks.history' has no attribute {name!r}")
        try:
            return getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise HistoryUnfit(WITHOUT_DRIVER) from None


# Literal, as checkers read it.
__all__ = [
    "Count",
    "Exclusion",
    "Page",
    "Postback",
    "Query",
    "StatRow",
    "Stats",
    "Story",
    "count",
    "find",
    "pages",
    "search",
    "stats",
    "why_empty",
]


def __dir__() -> list[str]:
    return __all__
