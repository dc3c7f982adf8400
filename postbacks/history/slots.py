"""Slots of the history: spans of acceptance times that hold about as many rows each.

Ids and hashes are random: those of one slot are spread over all its pages of an index. So a slot is short where much is
accepted. The time of an acceptance alone says its slot, at each reading: the slot that began last before it. A full hour always
begins one. Within an hour one begins once the slot before it is full, behind all that has been recorded of that hour: no
recorded row changes its slot. Rows that come late go to the slot of their time, however full it is.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from postbacks.history.schema import HOUR_MS, SLOT_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

#: Rows from which on a slot is full.
FULL: Final = 50_000

_HOUR: Final = HOUR_MS // SLOT_MS
#: Hours that are remembered; past it all of them are forgotten, and read again.
_REMEMBERED_MAX: Final = 5_000

_READ: Final = text("SELECT slot, postbacks FROM slots WHERE slot >= :since AND slot < :until ORDER BY slot")
_NEWEST: Final = text(
    "SELECT max(accepted_ms) FROM postbacks WHERE accepted_ms >= :since_ms AND accepted_ms < :until_ms"
)
_COUNT: Final = text(
    "INSERT INTO slots (slot, postbacks) VALUES (:slot, :more) "
    "ON CONFLICT (slot) DO UPDATE SET postbacks = slots.postbacks + excluded.postbacks"
)
_DROP: Final = text("DELETE FROM slots WHERE slot = :slot AND postbacks = 0")


def first_of_hour(accepted_ms: int) -> int:
    """Return the slot that begins with the hour of a time."""
    return accepted_ms // HOUR_MS * _HOUR


def hour_of(slot: int) -> int:
    """Return the hour that a slot lies in."""
    return slot // _HOUR


class Slots:
    """Slots that one writer knows. They hold while its transactions do: after one that failed, ``forget`` them.

    Args:
        full: rows from which on a slot is full.
    """

    def __init__(self, full: int = FULL) -> None:
        self._full = full
        self.forget()

    def forget(self) -> None:
        """Forget all slots; those of an hour are read again when they are needed."""
        self._hours: dict[int, list[int]] = {}
        self._rows: dict[int, int] = {}

    def of(self, connection: Connection, accepted_ms: int) -> int:
        """Return the slot of a time of acceptance."""
        hour = accepted_ms // HOUR_MS
        slots = self._hours.get(hour) or self._read(connection, hour)
        return slots[0] if len(slots) == 1 else slots[bisect_right(slots, accepted_ms // SLOT_MS) - 1]

    def open(self, connection: Connection, times_ms: Iterable[int]) -> None:
        """Open a slot in each hour whose last one is full, if any of these acceptances is behind all that it has."""
        latest: dict[int, int] = {}
        for at_ms in times_ms:
            hour = at_ms // HOUR_MS
            if at_ms > latest.get(hour, -1):
                latest[hour] = at_ms
        for hour, at_ms in latest.items():
            slots = self._hours.get(hour) or self._read(connection, hour)
            if self._rows.get(slots[-1], 0) < self._full:
                continue
            span = {"since_ms": slots[-1] * SLOT_MS, "until_ms": (hour + 1) * HOUR_MS}
            slot = int(connection.execute(_NEWEST, span).scalar_one()) // SLOT_MS + 1
            if slot <= at_ms // SLOT_MS:
                slots.append(slot)

    def count(self, connection: Connection, more: Mapping[int, int]) -> None:
        """Add to the number of rows of slots; what has none any more goes."""
        if not more:
            return
        connection.execute(_COUNT, [{"slot": slot, "more": rows} for slot, rows in more.items()])
        for slot, rows in more.items():
            if rows > 0:
                self._rows[slot] = self._rows.get(slot, 0) + rows
            else:  # read again when something is added there
                connection.execute(_DROP, {"slot": slot})
                self._rows.pop(slot, None)
                self._hours.pop(hour_of(slot), None)
        # Here alone, as those that were opened are written by now.
        if len(self._hours) > _REMEMBERED_MAX:
            self.forget()

    def _read(self, connection: Connection, hour: int) -> list[int]:
        first = hour * _HOUR
        rows = connection.execute(_READ, {"since": first, "until": first + _HOUR}).all()
        self._rows |= {row.slot: row.postbacks for row in rows}
        slots = self._hours[hour] = sorted({first, *(row.slot for row in rows)})
        return slots
