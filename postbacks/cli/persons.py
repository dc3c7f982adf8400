"""Persons of a list's postbacks: masked, or as they are once the journal says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.history.query import Postback, Query
    from postbacks.privacy import Masker


class Persons:
    """Reader of the persons whom postbacks of a list are about.

    Args:
        query: of the list, for the journal.
        reveal: why persons are to be shown, for the journal; None masks them.
    """

    def __init__(self, query: Query, reveal: str | None) -> None:
        self._query = query
        self._reveal = reveal
        self._is_written = False
        self._masker: Masker | None = None

    def mask(self) -> Masker | None:
        """Return the masker of the list; None where it reveals, after the first call has written that to the journal."""
        from postbacks.privacy import masker

        if self._reveal is None:
            self._masker = self._masker or masker()
        elif not self._is_written:
            self._write(self._reveal)
            self._is_written = True
        return self._masker

    def read(self, postbacks: Sequence[Postback]) -> list[str]:
        """Read the person of each postback; empty where its document is kept nowhere any more."""
        from postbacks.history.persons import person_of, records_of

        if not postbacks:
            return []
        mask = self.mask()
        return [person_of(record, mask) if record else "" for record in records_of(postbacks)]

    def _write(self, reveal: str) -> None:
        from postbacks.operate.jobs.filters import masked, to_json
        from postbacks.operate.reveal import write_reveal

        details = {"account": self._query.account, "filters": to_json(masked(self._query))}
        write_reveal("list", reveal, details={name: value for name, value in details.items() if value})
