"""System in which incidents come about: tick, delivering loop, recorder, finder and sender of notices, one clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from helpers import Rig
from recording import no_waiting, settings_of, settle
from sqlalchemy import event as sql_event

from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.history.recorder import Recorder
from postbacks.history.transactions import reading
from postbacks.operate.incidents import store
from postbacks.operate.incidents.finder import Finder
from postbacks.operate.incidents.store import Incident, Notice
from postbacks.operate.incidents.webhook import NoticeSender


class IncidentWorld:
    """Rig with a history and its duties.

    Args:
        broker: the suite's broker.
        url: of the history's database.
        changes: settings that differ.
    """

    def __init__(self, broker: EmbeddedBroker, url: str, monkeypatch: Any, **changes: Any) -> None:
        no_waiting(monkeypatch)
        self.rig = Rig(broker)
        self.settings = settings_of(url).model_copy(update=changes)
        self.recorder = Recorder(self.rig.client, self.settings)
        sql_event.listen(
            self.recorder.engine,
            "connect",
            lambda connection, _: connection.execute("PRAGMA synchronous = OFF"),
        )
        settle(self.recorder, self.rig.client)
        self.finder = Finder(self.recorder, self.rig.client, self.settings)
        self.sender = NoticeSender(self.recorder, self.rig.client, self.settings)

    def advance(self, seconds: float) -> None:
        """Move the clock of all of them on."""
        self.rig.advance(seconds)
        self.finder.clock_offset_ms = self.sender.clock_offset_ms = self.rig.scripts.clock_offset_ms

    def work(self) -> None:
        """Tick, deliver what is ready, record it."""
        self.rig.tick()
        self.rig.deliver_lanes()
        settle(self.recorder, self.rig.client)

    def look(self) -> None:
        """Let the finder look once."""
        self.finder.turn()

    def send(self) -> None:
        """Send the notices that are due."""
        while not self.sender.turn():
            pass

    def watch(self, minutes: float, *, every_s: float = 60) -> None:
        """Work and look for so many minutes."""
        for _ in range(int(minutes * 60 / every_s)):
            self.advance(every_s)
            self.work()
            self.look()

    def incidents(self) -> list[Incident]:
        """Read all incidents, in their order."""
        with reading(self.recorder.engine) as connection:
            return sorted(store.newest(connection, open_only=False, limit=10_000), key=lambda one: one.id)

    def notices(self) -> list[Notice]:
        """Read all notices, in their order."""
        with reading(self.recorder.engine) as connection:
            return [notice for one in self.incidents() for notice in store.notices_of(connection, one.id)]

    def told(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return change and data of each notice that is told."""
        return [
            (notice.change, json.loads(notice.body)["data"])
            for notice in self.notices()
            if notice.state not in store.UNTOLD
        ]

    def close(self) -> None:
        """Release all."""
        self.recorder.close()
        self.rig.close()
