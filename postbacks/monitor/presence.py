"""Workers and beats by their signs of life (``sign.py``).

The age of the last tick speaks for beat, broker and workers together; these say which of them is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Presence:
    """The workers, or the beats, by their signs of life.

    Attributes:
        names: node names of those that run.
        last_ms: when the latest sign was given, or withdrawn; None where none is known.
        age_s: seconds since then.
    """

    names: tuple[str, ...] = ()
    last_ms: int | None = None
    age_s: float | None = None

    @property
    def since(self) -> str:
        """Say since when nothing has been heard, with the date; empty where nothing ever was."""
        if self.last_ms is None:
            return ""
        return f" since {datetime.fromtimestamp(self.last_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def find_present(signs: Iterable[tuple[bytes, float]], now_ms: int) -> Presence:
    """Judge who runs by the signs of ``keys.WORKERS`` or ``keys.BEATS`` (members with scores)."""
    names, last_ms = [], None
    for member, score in signs:
        last_ms = max(last_ms or 0, int(abs(score)))
        gone_after_s, _, _, name = member.decode("utf-8", "replace").split(" ", 3)
        # One from the future is left of a clock that was put back.
        if abs(now_ms - score) < float(gone_after_s) * 1000:
            names.append(name)
    age_s = None if last_ms is None else max(0.0, (now_ms - last_ms) / 1000)
    return Presence(tuple(sorted(names)), last_ms, age_s)


def explain_missing(workers: Presence, beats: Presence) -> list[str]:
    """Say which of the two is missing and how it is started, a sentence each; empty where both run."""
    return [
        f"No {kind} has been heard of{of_kind.since}: start one (celery -A postbacks {kind})."
        for kind, of_kind in (("worker", workers), ("beat", beats))
        if not of_kind.names
    ]
