"""The rows that scripts take, field by field; ``scripts.py`` alone flattens them."""

from __future__ import annotations

from typing import NamedTuple


class AttemptRow(NamedTuple):
    """An attempt that has ended, as ``commit.lua`` takes it.

    Attributes:
        id: the postback's id.
        lane: the postback's lane.
        verdict: state that the attempt leads to: ``delivered``, ``parked`` or ``dead``.
        number: number of the attempt, 1 for the first POST.
        attempt: the attempt as JSON (``Attempt.to_json``).
        countdown_ms: time until a parked postback is due.
        mood: what the attempt says of its lane: ``ok``, ``slow``, ``failed``, or ``shared`` for a failed one whose
            own POST has not begun.
        reason: the attempt's outcome.
    """

    id: str
    lane: str
    verdict: str
    number: int
    attempt: str
    countdown_ms: int
    mood: str
    reason: str
