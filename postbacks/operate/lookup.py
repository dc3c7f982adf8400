"""Look-up of one postback by its id: in the broker's ledger, else in the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from postbacks.broker.client import client
from postbacks.errors import BrokerError, HistoryError
from postbacks.ledger.record import iso
from postbacks.monitor.causes import Explanation, explain
from postbacks.operate.reveal import check_reveal, write_reveal
from postbacks.privacy import masker
from postbacks.settings import load

if TYPE_CHECKING:
    from postbacks.history.copies import Copy, Recorded
    from postbacks.ledger.record import Record
    from postbacks.privacy import Masker
    from postbacks.settings import Settings


class Found(NamedTuple):
    """Postback of an id, as far as it is known.

    Attributes:
        record: the newest acceptance, as the ledger has it, or else as the history has it; None where neither does.
        explanation: why it has not been sent, or where its message is; None where the broker cannot say.
        copy: its copy in the history; None where the broker has it.
        others: copies of other acceptances of its id, the newest first.
        recorded_ms: until when the history had read the broker's changes; None where it was not asked.
        trouble: why the broker could not be asked, a sentence; empty where it could.
        unknown: what is known of an id that nobody has, a sentence; empty where there is a record.
    """

    record: Record | None
    explanation: Explanation | None
    copy: Copy | None
    others: tuple[Copy, ...]
    recorded_ms: int | None
    trouble: str = ""
    unknown: str = ""

    def masked(self, mask: Masker) -> Found:
        """Return it without what is personal."""

        def masked(copy: Copy) -> Copy:
            return copy._replace(record=copy.record.masked(mask))

        return self._replace(
            record=self.record and self.record.masked(mask),
            explanation=self.explanation
            and self.explanation._replace(
                record=self.explanation.record and self.explanation.record.masked(mask)
            ),
            copy=self.copy and masked(self.copy),
            others=tuple(map(masked, self.others)),
        )


def look_up(
    postback_id: str, settings: Settings | None = None, *, reveal: str | None = None, by: str | None = None
) -> Found:
    """Find the postback of an id, wherever it is known.

    Args:
        postback_id: the id.
        settings: without them those of the process.
        reveal: why numbers, addresses and texts are to be shown, for the journal; None masks them.
        by: who asks; None for the user of this process.

    Raises:
        RevealRefused: the reason to reveal is empty.
        BrokerError: the broker cannot be asked, and the history does not have it.
    """
    check_reveal(reveal)
    settings = settings or load()
    found = _find(postback_id, settings)
    if reveal is None:
        return found.masked(masker(settings=settings))
    if found.record is not None:
        write_reveal(postback_id, reveal, by)
    return found


def _find(postback_id: str, settings: Settings) -> Found:
    trouble: BrokerError | None = None
    try:
        explanation = explain(client(), postback_id, settings)
    except BrokerError as error:
        explanation, trouble = Explanation(None, None, ()), error
    recorded, of_history = _ask_history(postback_id, settings)
    copies = recorded.copies if recorded else ()
    recorded_ms = recorded.recorded_ms if recorded else None
    record = explanation.record
    if record is not None:
        others = tuple(copy for copy in copies if copy.record.created_ms != record.created_ms)
        return Found(record, explanation, None, others, recorded_ms)
    if copies:
        newest, *others_of_it = copies
        return Found(newest.record, None, newest, tuple(others_of_it), recorded_ms, str(trouble or ""))
    if trouble is not None:
        raise trouble
    return Found(
        None, explanation, None, (), recorded_ms, unknown=_unknown(postback_id, explanation, of_history)
    )


def _ask_history(postback_id: str, settings: Settings) -> tuple[Recorded | None, str]:
    """Ask the history for an id; return its answer, and as a sentence what it does not have."""
    if not settings.history_url:
        return None, "No history is set (POSTBACKS_HISTORY_URL), which would know what has left the broker."
    try:
        # Loaded only where there is a history: SQLAlchemy takes as long to import as all of this.
        from postbacks.history import copies_of  # noqa: PLC0415

        recorded = copies_of(postback_id)
    except HistoryError as error:
        return None, f"The history cannot be asked: {error}"
    if recorded.since_ms is None:
        return recorded, "The history has no postback yet."
    return recorded, (
        f"The history does not have it either; it goes back to {iso(recorded.since_ms)} and has recorded until "
        f"{iso(recorded.recorded_ms) or 'no time that is known'}."
    )


def _unknown(postback_id: str, explanation: Explanation, of_history: str) -> str:
    """Say of an id that nobody has what is known: its message, how many were looked at for it, and how far history sees."""
    clauses = [cause.sentence for cause in explanation.causes]
    looked_at, messages = explanation.looked_at
    is_queued = bool({cause.name for cause in explanation.causes} & {"in_queue", "in_intake"})
    if is_queued:
        words = "it is not taken in yet"
    else:
        words = (
            "it is not taken in yet (is a worker running?), was dropped after its retention, or never existed"
        )
        if messages:
            clauses.insert(
                0, f"{messages:,} messages wait to be taken in, and it is none of the {looked_at:,} looked at"
            )
    sentence = f"The ledger has no postback {postback_id}: {'; '.join([words, *clauses])}."
    return sentence if is_queued else f"{sentence} {of_history}"
