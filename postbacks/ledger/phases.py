"""Phases of a POST, from the look-up of the name to the end of the answer."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: Phases as a note has them (``Phases.packed``).
_PACKED: Final = re.compile(r"\d{0,9}(?:,\d{0,9}){0,4}", re.ASCII)
#: Field -> its word.
WORDS: Final = {
    "lookup_ms": "lookup",
    "connect_ms": "connect",
    "tls_ms": "TLS",
    "wait_ms": "wait",
    "read_ms": "read",
}


class Phases(NamedTuple):
    """Phases of a POST in ms, together as long as the POST. Those that it did not go through are None.

    The last one is that in which it ended, well or not. A POST with a wait and without a connect went over a kept connection.

    Attributes:
        lookup_ms: until the name had its addresses; None where the URL has an address.
        connect_ms: until TCP stood (through a proxy, to the proxy); None over a kept connection.
        tls_ms: until TLS stood, and with it the proxy's tunnel.
        wait_ms: from the begin of the request to the first byte of the answer.
        read_ms: from there to the end of the answer.
    """

    lookup_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    wait_ms: int | None = None
    read_ms: int | None = None

    @property
    def packed(self) -> str:
        """Phases as a note and the history have them: ``1,12,40,2003,5``, over a kept connection ``0,,,2003,5``."""
        return "{},{},{},{},{}".format(*self).replace("None", "").rstrip(",")

    @classmethod
    def unpack(cls, packed: str | None) -> Phases | None:
        """Return the phases that a note or the history has; None where there are none that this version can read."""
        if not packed or not _PACKED.fullmatch(packed):
            return None
        return cls(*(int(ms) if ms else None for ms in packed.split(",")))

    @property
    def gone_through(self) -> dict[str, int]:
        """The phases that the POST went through, by their fields."""
        return {name: ms for name, ms in zip(self._fields, self, strict=True) if ms is not None}

    @property
    def over_kept_connection(self) -> bool:
        """True where the POST made no connection of its own."""
        return self.connect_ms is None and self.wait_ms is not None


def words_of(phases: Phases | None, address: str) -> str:
    """Put phases and address into words; empty where neither is known."""
    words = [f"{WORDS[name]} {ms:,} ms" for name, ms in phases.gone_through.items()] if phases else []
    is_kept = phases is not None and phases.over_kept_connection
    if address:
        words.append(f"{'over a kept connection ' if is_kept else ''}to {address}")
    elif is_kept:
        words.append("over a kept connection")
    return ", ".join(words)
