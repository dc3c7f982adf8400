"""Forms of ``postbacks list --opt-outs``: their age, and a proof of every attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from postbacks.cli.search import HEADINGS, Printer
from postbacks.history.proofs import ProofRow, age_ms, proof_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from postbacks.cli.persons import Persons
    from postbacks.cli.sources import Ended, History
    from postbacks.history.query import Postback


class OptOutPrinter(Printer):
    """Printer of opt-outs, with the time to their delivery, or until now."""

    headings = (*HEADINGS[:-1], "age")

    def _cells(self, postback: Postback) -> tuple[object, ...]:
        from postbacks.history.times import length

        return (*super()._cells(postback)[:-1], length(age_ms(postback, _now_ms())))

    def _public_dict(self, postback: Postback) -> dict[str, Any]:
        return super()._public_dict(postback) | {"age_s": age_ms(postback, _now_ms()) // 1000}


class ProofPrinter(Printer):
    """Printer of a proof as CSV: a row an attempt, with the person.

    Args:
        source: as ``Printer``.
        persons: masks or reveals them.
    """

    columns = ProofRow._fields

    def __init__(self, source: History | Ended, persons: Persons) -> None:
        super().__init__("--csv", source)
        self._mask = persons.mask

    def _csv_rows(self, postbacks: Sequence[Postback]) -> Iterator[dict[str, Any]]:
        if not postbacks:
            return
        for row in proof_of(postbacks, _now_ms(), self._mask()):
            yield {name: value for name, value in row._asdict().items() if value is not None}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
