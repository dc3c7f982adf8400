"""Workers and beats that run, by their signs of life (``broker/sign_of_life.py``).

The age of the last tick speaks for beat, broker and workers together; signs of life say which of them is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from postbacks.broker.client import text
from postbacks.broker.fitness import takes_signs

#: A sign of life: seconds after which the process counts as gone, its token, its version and its name.
_SIGN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) \S+ \S+ (.+)")
#: Milliseconds that a sign may lie ahead: a clock is put back by less.
_AHEAD_MAX_MS: Final = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Presence:
    """Workers, or beats, by their signs of life.

    Attributes:
        names: node names of those that run.
        last_ms: when the latest sign was given, or withdrawn; None where there is none.
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


def is_tick_missing(last_tick_ms: int | None, now_ms: int, limit_s: float) -> bool:
    """Tell whether no tick has finished within so many seconds; none ever has where ``last_tick_ms`` is None."""
    return last_tick_ms is None or now_ms - last_tick_ms > limit_s * 1000


def missing(refusal: str, workers: Presence, beats: Presence) -> dict[str, Presence]:
    """Return the kinds of process, as Celery calls them, of which nobody gives signs of life.

    Args:
        refusal: why the broker would refuse a postback. Where it refuses signs of life as well, their lack says nothing.
        workers: those that give signs of life.
        beats: those that give signs of life.
    """
    if not takes_signs(refusal):
        return {}
    kinds = {"worker": workers, "beat": beats}
    return {kind: presence for kind, presence in kinds.items() if not presence.names}


def find_present(signs: Iterable[tuple[bytes, float]], now_ms: int) -> Presence:
    """Judge which processes run by the signs of ``keys.WORKERS`` or ``keys.BEATS`` (members with scores).

    Whoever may write to these keys can write members that are no signs: they are passed over.
    """
    names, last_ms = [], None
    for member, score in signs:
        sign = _SIGN.fullmatch(text(member))
        if sign is None or abs(score) > now_ms + _AHEAD_MAX_MS:
            continue
        last_ms = max(last_ms or 0, int(abs(score)))
        # A sign from the future is left of a clock that was put back.
        if abs(now_ms - score) < float(sign[1]) * 1000:
            names.append(sign[2])
    age_s = None if last_ms is None else max(0.0, (now_ms - last_ms) / 1000)
    return Presence(tuple(sorted(names)), last_ms, age_s)
