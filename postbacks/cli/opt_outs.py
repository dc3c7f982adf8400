"""Forms of ``postbacks list --opt-outs``: their age, and a proof of every attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from postbacks.cli.search import HEADINGS, Printer
from postbacks.history.proofs import ProofRow, age_ms, proof_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from postbacks.cli.sources import Ended, History
    from postbacks.history.query import Postback


class OptOutPrinter(Printer):
    """Printer of opt-outs: with the time to their delivery, or until now; a row an attempt as CSV.

    Args:
        form: as ``Printer``.
        source: as ``Printer``.
        reveal: why numbers and addresses are to be shown, for the journal; None masks them.
    """

    columns = ProofRow._fields
    headings = (*HEADINGS[:-1], "age")

    def __init__(self, form: str, source: History | Ended, reveal: str | None) -> None:
        super().__init__(form, source)
        self._reveal = reveal
        self._is_written = False

    def _cells(self, postback: Postback) -> tuple[object, ...]:
        from postbacks.cli.times import length

        return (*super()._cells(postback)[:-1], length(age_ms(postback, _now_ms())))

    def _public_dict(self, postback: Postback) -> dict[str, Any]:
        return super()._public_dict(postback) | {"age_s": age_ms(postback, _now_ms()) // 1000}

    def _csv_rows(self, postbacks: Sequence[Postback]) -> Iterator[dict[str, Any]]:
        from postbacks.operate.reveal import write_reveal
        from postbacks.privacy import masker

        if self._reveal is not None and postbacks and not self._is_written:
            write_reveal("list --opt-outs --csv", self._reveal)
            self._is_written = True
        mask = masker() if self._reveal is None else None
        for row in proof_of(postbacks, _now_ms(), mask):
            yield {name: value for name, value in row._asdict().items() if value is not None}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
